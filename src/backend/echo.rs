//! The built-in backend that sends back what it is sent, and ends when the client has.

use tokio::io::{AsyncWriteExt, DuplexStream};

pub(crate) async fn serve(stream: DuplexStream) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    // Fails only when the relay has ended, which has its own record of why.
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}
