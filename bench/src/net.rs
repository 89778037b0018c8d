//! The network path against a bare stream: two peers on loopback, in lockstep; and tiles that move to a newcomer.

use peercompute_net::transport::twin::{TwinError, exchange_throughput, moved_throughput, raw_one_way_throughput, raw_stream_throughput};

use crate::report::{Figure, Kind};
use crate::rounds::interleave;
use crate::{Bench, BenchError, BenchOptions, Effort};

const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// What of a bare libp2p stream's throughput sessions must keep.
const TARGET: f64 = 0.7;
/// What of it a newcomer's tiles must keep, hashed and checked.
const MOVE_TARGET: f64 = 0.6;

/// Two sessions exchange frames, against one bare libp2p stream with the same sizes and pattern.
///
/// **Errors:** a session or the bare stream failed.
pub(crate) fn exchange(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (rounds, bytes_a_round) = match options.effort {
        Effort::Tiny => (1, 0),
        Effort::Quick => (3, 64 << 20),
        Effort::Full => (9, 256 << 20),
    };
    let sizes: &[u32] = if options.effort == Effort::Tiny { &[1024] } else { &[64 << 10, 1 << 20] };
    for &frame_bytes in sizes {
        let case = format!("frames of {} KiB, both ways, TCP on loopback", frame_bytes >> 10);
        progress(&format!("exchange: {case}"));
        let frames = (bytes_a_round / frame_bytes).max(3);
        let bytes = 2.0 * f64::from(frame_bytes);
        // Both sides time only the exchanges: neither dialling nor assembling.
        let seconds = |megabytes_per_second: f64| bytes * f64::from(frames) / (megabytes_per_second * 1e6);
        let measured = interleave(
            rounds,
            frames,
            &mut |frames| exchange_throughput(LISTEN, frame_bytes, frames.into()).map(|t| seconds(t.megabytes_per_second)).map_err(failed),
            &mut |frames| raw_stream_throughput(LISTEN, frame_bytes, frames.into()).map(|t| seconds(t.megabytes_per_second)).map_err(failed),
        )?;
        let figure = measured.figure(Bench::Exchange, case, Kind::Speed, "MB/s", bytes / 1e6, "bare libp2p stream");
        figures.push(figure.with_target(Some(TARGET)));
    }
    Ok(())
}

/// Tiles move from a host, which goes on ticking, to a member that joins; against a bare stream of as many bytes.
///
/// **Errors:** a session or the bare stream failed.
pub(crate) fn moves(options: &BenchOptions, figures: &mut Vec<Figure>, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
    let (rounds, parts) = match options.effort {
        Effort::Tiny => (1, 2),
        Effort::Quick => (3, 64),
        Effort::Full => (7, 64),
    };
    let part_bytes: u32 = if options.effort == Effort::Tiny { 64 << 10 } else { 4 << 20 };
    let bytes = f64::from(part_bytes) * f64::from(parts);
    let case = format!("{:.0} MiB in tiles of {} KiB to a newcomer, TCP on loopback", bytes / f64::from(1 << 20), part_bytes >> 10);
    progress(&format!("move: {case}"));
    let seconds = |megabytes_per_second: f64| bytes / (megabytes_per_second * 1e6);
    let measured = interleave(
        rounds,
        1,
        &mut |_| moved_throughput(LISTEN, part_bytes, parts).map(|t| seconds(t.megabytes_per_second)).map_err(failed),
        &mut |_| raw_one_way_throughput(LISTEN, part_bytes, parts.into()).map(|t| seconds(t.megabytes_per_second)).map_err(failed),
    )?;
    let figure = measured.figure(Bench::Move, case, Kind::Speed, "MB/s", bytes / 1e6, "bare libp2p stream into memory");
    figures.push(figure.with_target(Some(MOVE_TARGET)));
    Ok(())
}

fn failed(error: TwinError) -> BenchError {
    BenchError::Net { cause: error.to_string() }
}
