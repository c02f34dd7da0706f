//! Tunnels with other programs at the other end: Envoy, Node.js, curl, and frames from Python.

mod common;
mod tunnel_peers {
    mod clients;
    mod curl;
    mod envoy;
    mod hostile;
    mod node;
    mod talk;
    mod terminators;
    mod ztunnel;

    use std::collections::HashMap;

    use crate::common::backend::Backend;
    use crate::common::changing::Site;
    use crate::common::tunnel::start;
    use crate::common::vestibule::{Relay, Vestibule};

    /// The ports of a peer, each for an authority.
    type Doors = HashMap<String, String>;

    /// A Vestibule with a listener for tunnels, the files of alice, and the program behind `app:1`.
    async fn terminator() -> (Site, Vestibule, Backend) {
        let site = Site::new();
        site.client("alice").write(site.directory.path(), "alice");
        let app = Backend::tcp().await;
        let config = ROUTES.replace("{app}", &app.address());
        let vestibule = start(&site, Relay::Auto, &config).await;
        (site, vestibule, app)
    }

    fn port(vestibule: &Vestibule) -> u16 {
        let address = vestibule.tcp();
        let (_, port) = address.rsplit_once(':').expect("a port");
        port.parse().expect("a number")
    }

    const ROUTES: &str = r#"
[[route]]
authority = ["echo:1"]
backend = "echo"
[[route]]
authority = ["app:1"]
backend = "app"
[[route]]
authority = ["dead:1"]
backend = "dead"
[[route]]
authority = ["nobody:1"]
backend = "nobody"
[[backend]]
name = "echo"
to = "echo"
[[backend]]
name = "app"
to = "{app}"
[[backend]]
name = "dead"
to = "unix:{dir}/nobody.sock"
park = false
[[backend]]
name = "nobody"
to = "gate"
"#;
}
