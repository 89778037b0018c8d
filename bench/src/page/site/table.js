// A report as a table.

const HEAD = ["", "framework", "twin", "ratio", "target"];

// A speed has its giga in its unit: a slow one is told in mega or kilo.
const SCALES = [["G", 1], ["M", 1e3], ["k", 1e6]];

function quantity(value, unit) {
  const [prefix, times] = unit.startsWith("G") ? (SCALES.find(([, times]) => value * times >= 1) ?? SCALES[2]) : ["", 1];
  const scaled = value * times;
  const digits = scaled >= 100 ? Math.round(scaled).toString() : Number(scaled.toPrecision(3)).toString();
  return `${digits} ${prefix}${prefix ? unit.slice(1) : unit}`;
}

function cell(text, name, kind = "") {
  const cell = document.createElement("td");
  cell.textContent = text;
  if (name && text) cell.dataset.name = name;
  cell.className = kind;
  return cell;
}

function row({ case: title, value, twin_value, unit, ratio, target, met, kind, twin }) {
  const row = document.createElement("tr");
  const judged = met === null ? "" : met ? "met" : "missed";
  // What is no framework against its twin says what else it is.
  const what = kind === "context" ? `${title}; twin: ${twin}` : title;
  row.append(
    cell(what),
    cell(quantity(value, unit), HEAD[1]),
    cell(quantity(twin_value, unit), HEAD[2]),
    cell(ratio.toFixed(2), HEAD[3], `ratio ${judged}`),
    cell(target === null ? "" : `≥ ${target.toFixed(2)}`, HEAD[4]),
  );
  return row;
}

export function fill(table, figures) {
  const [head, names, body] = ["thead", "tr", "tbody"].map((name) => document.createElement(name));
  names.append(
    ...HEAD.map((name) => {
      const cell = document.createElement("th");
      cell.textContent = name;
      return cell;
    }),
  );
  head.append(names);
  body.append(...figures.map(row));
  table.replaceChildren(head, body);
}
