//! Revocations of a program that embeds Vestibule.

use vestibule::{Config, Id, Proxy, RevokeError, Running};

async fn running(directory: &std::path::Path) -> Running {
    let config = format!(
        "[runtime]\ndirectory = {directory:?}\n[[listener]]\nname = \"plain\"\n\
         address = \"tcp:127.0.0.1:0\"\n[[backend]]\nname = \"echo\"\nto = \"echo\"\n"
    );
    let config: Config = config.parse().expect("a configuration");
    let proxy = Proxy::builder(config).bind().await;
    proxy.expect("a free port").start()
}

#[tokio::test]
async fn a_program_revokes_lists_and_removes_and_the_next_one_knows() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = running(directory.path()).await;
    let made = first.revoke("dns:Web.Corp.example").await.expect("a disk");
    assert!(made.is_new && made.is_stored);
    assert_eq!(made.ended, 0);
    assert_eq!(made.revocation.identity, "dns:web.corp.example");
    let again = first.revoke("dns:web.corp.EXAMPLE").await.expect("a disk");
    assert_eq!((again.is_new, &again.revocation), (false, &made.revocation));
    let wrong = first.revoke("web.corp.example").await;
    assert!(matches!(wrong, Err(RevokeError::Identity { .. })));
    drop(first);

    let second = running(directory.path()).await;
    assert_eq!(
        second.revocations().as_slice(),
        std::slice::from_ref(&made.revocation)
    );
    let unknown = second.remove_revocation(Id::random()).await;
    assert_eq!(unknown.expect("a disk"), None);
    let removed = second.remove_revocation(made.revocation.id).await;
    assert_eq!(removed.expect("a disk"), Some(made.revocation));
    assert!(second.revocations().is_empty());
}
