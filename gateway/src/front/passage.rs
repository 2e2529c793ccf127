//! What a stream that wraps another one says of itself to Pingora: what the inner one says.

/// Passes Pingora's questions about a connection on to the stream that `inner()` gives.
macro_rules! passes_on {
    ($type:ty) => {
        impl pingora_core::protocols::UniqueID for $type {
            fn id(&self) -> pingora_core::protocols::UniqueIDType {
                self.inner().id()
            }
        }
        impl pingora_core::protocols::Ssl for $type {
            fn get_ssl(&self) -> Option<&pingora_core::protocols::tls::TlsRef> {
                self.inner().get_ssl()
            }
            fn get_ssl_digest(&self) -> Option<std::sync::Arc<pingora_core::protocols::tls::SslDigest>> {
                self.inner().get_ssl_digest()
            }
            fn selected_alpn_proto(&self) -> Option<pingora_core::listeners::ALPN> {
                self.inner().selected_alpn_proto()
            }
        }
        impl pingora_core::protocols::GetTimingDigest for $type {
            fn get_timing_digest(&self) -> Vec<Option<pingora_core::protocols::TimingDigest>> {
                self.inner().get_timing_digest()
            }
            fn get_read_pending_time(&self) -> std::time::Duration {
                self.inner().get_read_pending_time()
            }
            fn get_write_pending_time(&self) -> std::time::Duration {
                self.inner().get_write_pending_time()
            }
        }
        impl pingora_core::protocols::GetSocketDigest for $type {
            fn get_socket_digest(&self) -> Option<std::sync::Arc<pingora_core::protocols::SocketDigest>> {
                self.inner().get_socket_digest()
            }
        }
        impl pingora_core::protocols::Peek for $type {}
    };
}
pub(super) use passes_on;
