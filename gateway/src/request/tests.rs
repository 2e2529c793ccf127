mod chunks;
mod forward;
mod framing;
mod target;
