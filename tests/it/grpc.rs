//! HTTP/2 to upstreams, and gRPC.

mod upstream;
mod web;
