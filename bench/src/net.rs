//! The network path against a bare stream: two peers on loopback, in lockstep.

use peercompute_net::transport::twin::{exchange_throughput, raw_stream_throughput};

use crate::report::{Figure, Kind};
use crate::rounds::interleave;
use crate::{Bench, BenchError, BenchOptions, Effort};

const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// What of a bare libp2p stream's throughput sessions must keep.
const TARGET: f64 = 0.7;

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
        let failed = |error: peercompute_net::transport::twin::TwinError| BenchError::Net { cause: error.to_string() };
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
