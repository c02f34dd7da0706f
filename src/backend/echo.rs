//! The built-in backend that echoes, and ends after the client has ended.

use tokio::io::{AsyncWriteExt, DuplexStream};

pub(crate) async fn serve(stream: DuplexStream) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    // This fails only if the relay has ended, and the relay records the reason.
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}
