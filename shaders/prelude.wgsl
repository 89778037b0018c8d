// The prelude: what a kernel knows of its place. It is linked behind every kernel, after the constants
// PC_GRID, PC_TILE, PC_HALO, … that the linker writes for the pass; names that start with `pc_` or `PC_`
// are the framework's. Memory is a pool of slots without halos (see buffers/src/residency.rs for the
// table's layout): inside the tile a neighbour is a fixed step away, beyond its border the tile's
// neighbour table names it by one affine entry per direction.

/// Where an invocation stands.
struct Cell {
    /// Whether it has an element at all: the last workgroups of a tile may reach beyond it.
    inside: bool,
    /// The element's index in the arena of every field of the grid.
    index: u32,
    /// The element's place in the grid.
    coord: vec3<u32>,
    /// The element's place in its tile.
    local: vec3<i32>,
    /// The tile's extent: smaller than PC_TILE at the end of a grid that tiles do not divide.
    extent: vec3<i32>,
    /// The tile's row in the tile table.
    row: u32,
    /// The workgroup's number among all of the pass.
    group: u32,
}

struct PcDispatch {
    tick: u32,
    /// The tile table's first row of this dispatch.
    first_row: u32,
    /// Rows of the tile table in pages before this one.
    page_row: u32,
    /// Invocations along z for one tile.
    span_z: u32,
    /// Where in the tile the dispatch starts.
    offset: vec3<u32>,
    /// The box that the invocations count through, for a pipeline of slabs.
    slab: vec3<u32>,
}

var<storage, read> tile: array<vec4<i32>>;
var<uniform> pc_dispatch: PcDispatch;

/// Set for a pipeline that only runs where every neighbour within the halo lies in the same tile.
override pc_interior: bool = false;
/// Set for one of those that starts at the first tile and right behind the halo, always: its place takes no load.
override pc_inner: bool = false;
/// Set for a pipeline whose invocations count through a box of any shape, x first, whatever the workgroup's.
override pc_slab: bool = false;

/// The place of an invocation, from @builtin(global_invocation_id).
fn cell(id: vec3<u32>) -> Cell {
    var row = id.z;
    var z = 0u;
    if (PC_DEEP) {
        let group = id.z / PC_GROUP.z;
        let groups = pc_dispatch.span_z / PC_GROUP.z;
        row = group / groups;
        z = group % groups * PC_GROUP.z + id.z % PC_GROUP.z;
    }
    if (!pc_inner) {
        row += pc_dispatch.first_row;
    }
    var spread = vec3<u32>(id.xy, z);
    if (pc_slab) {
        let lane = id.x % PC_GROUP.x + PC_GROUP.x * (id.y + PC_GROUP.y * z);
        let k = id.x / PC_GROUP.x * (PC_GROUP.x * PC_GROUP.y * PC_GROUP.z) + lane;
        let slab = pc_dispatch.slab;
        spread = vec3<u32>(k % slab.x, k / slab.x % slab.y, k / (slab.x * slab.y));
    }
    var start = vec3<u32>(PC_HALO);
    if (!pc_inner) {
        start = pc_dispatch.offset;
    }
    let reached = spread + start;
    // Axes that the grid does not have are 0 for the compiler too.
    let local = reached * PC_USED;
    let place = tile[row * PC_ROW];
    // The element's address must not wait for a load: rows are slots, unless other peers' tiles lie between them.
    var first = row * PC_SLOT;
    if (PC_WHOLE) {
        first = u32(place.x);
    }
    var extent = vec3<i32>(PC_TILE);
    if (!PC_DIVISIBLE) {
        extent = tile[row * PC_ROW + 1u].xyz;
    }
    var inside = PC_FULL || all(reached < vec3<u32>(extent));
    if (pc_interior) {
        inside = all(reached < vec3<u32>(extent - PC_HALO));
    }
    if (pc_slab) {
        inside = spread.z < pc_dispatch.slab.z;
    }
    let in_tile = vec3<i32>(local);
    let index = first + u32(in_tile.x + extent.x * (in_tile.y + extent.y * in_tile.z));
    let in_groups = local / PC_GROUP;
    let group = (pc_dispatch.page_row + row) * PC_GROUPS.x * PC_GROUPS.y * PC_GROUPS.z
        + in_groups.x + PC_GROUPS.x * (in_groups.y + PC_GROUPS.y * in_groups.z);
    return Cell(inside, index, vec3<u32>(place.yzw) + local, in_tile, extent, row, group);
}

/// The arena index of a neighbour. Beyond the halo that the pass declares, it is the last one within.
fn at(c: Cell, dx: i32, dy: i32, dz: i32) -> u32 {
    let away = clamp(vec3<i32>(dx, dy, dz), -PC_HALO, PC_HALO);
    let near = u32(i32(c.index) + away.x + c.extent.x * (away.y + c.extent.y * away.z));
    if (pc_interior) {
        return near;
    }
    let place = c.local + away;
    if (all(vec3<u32>(place) < vec3<u32>(c.extent))) {
        return near;
    }
    let side = select(select(vec3<i32>(1), vec3<i32>(2), place >= c.extent), vec3<i32>(0), place < vec3<i32>(0));
    let entry = tile[c.row * PC_ROW + 2u + u32(dot(side, PC_SIDE))];
    return u32(entry.x + place.x * entry.y + place.y * entry.z + place.z * entry.w);
}

/// Where this workgroup keeps its share of element `k` of a table that is reduced.
fn partial(c: Cell, k: u32) -> u32 {
    return c.group * PC_PARTIALS + k;
}

/// The grid's extents; 1 along axes that it does not have.
fn grid_shape() -> vec3<u32> {
    return PC_GRID;
}

/// The number of the current tick, from 0.
fn tick() -> u32 {
    return pc_dispatch.tick;
}
