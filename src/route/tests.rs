use super::*;

fn pattern(text: &str) -> NamePattern {
    text.parse().expect("a pattern")
}

fn who(text: &str) -> identity::Rule {
    text.parse().expect("an identity rule")
}

fn to(name: &str) -> Action {
    Action::Backend(name.into())
}

fn named(name: &str) -> Identity {
    Identity {
        cn: Some(name.into()),
        ..Identity::default()
    }
}

#[test]
fn the_first_rule_whose_keys_all_match_wins() {
    let routes = Routes::new(vec![
        Rule {
            from: vec!["192.0.2.0/24".parse().expect("a network")],
            ..Rule::default()
        },
        Rule {
            listener: vec!["https".into()],
            sni: vec![pattern("a.example"), pattern("*.b.example")],
            alpn: vec!["h2".into(), "http/1.1".into()],
            action: to("web"),
            ..Rule::default()
        },
        Rule {
            listener: vec!["https".into()],
            action: to("rest"),
            ..Rule::default()
        },
    ]);
    let ask = |listener, sni, alpn, peer: Option<&str>| {
        let query = Query {
            listener,
            sni,
            alpn,
            peer: peer.map(|ip| ip.parse().expect("an IP address")),
            identity: None,
            authority: None,
        };
        routes.choose(&query).map(str::to_owned)
    };
    assert_eq!(
        ask("https", Some("x.b.example"), Some("h2"), None),
        Ok("web".into())
    );
    assert_eq!(
        ask("https", Some("A.example."), Some("h2"), None),
        Ok("web".into())
    );
    assert_eq!(
        ask("https", Some("a.example"), None, None),
        Ok("rest".into())
    );
    assert_eq!(ask("https", None, Some("h2"), None), Ok("rest".into()));
    assert_eq!(
        ask("https", None, None, Some("192.0.2.9")),
        Err(RouteRefusal::Denied)
    );
    assert_eq!(
        ask("other", None, None, Some("198.51.100.1")),
        Err(RouteRefusal::NoRoute)
    );
    assert_eq!(routes.protocols("https"), ["h2", "http/1.1"]);
    assert!(routes.protocols("other").is_empty());
}

/// The index must not change the result, only the time that it takes.
#[test]
fn an_exact_name_does_not_take_precedence_over_an_earlier_rule() {
    let rule = |names: &[&str], action| Rule {
        sni: names.iter().map(|name| pattern(name)).collect(),
        action,
        ..Rule::default()
    };
    let routes = Routes::new(vec![
        rule(&["x.example", "*.x.example", "x.example"], to("first")),
        rule(&["*.example"], to("second")),
        rule(&["y.example"], to("never")),
        rule(&["x.y.example"], Action::Deny),
        rule(&[], to("last")),
    ]);
    for (sni, expected) in [
        (Some("x.example"), Ok("first")),
        (Some("a.x.example"), Ok("first")),
        (Some("y.example"), Ok("second")),
        (Some("x.y.example"), Err(RouteRefusal::Denied)),
        (Some("else.where"), Ok("last")),
        (None, Ok("last")),
    ] {
        let query = Query {
            sni,
            ..Query::default()
        };
        assert_eq!(routes.choose(&query), expected, "{sni:?}");
    }
}

#[test]
fn a_rule_about_identities_matches_any_of_them() {
    let routes = Routes::new(vec![
        Rule {
            identity: vec![who("cn:mallory")],
            ..Rule::default()
        },
        Rule {
            identity: vec![who("cn:alice"), who("cn:bob")],
            action: to("inner"),
            ..Rule::default()
        },
    ]);
    let ask = |identity: Option<&Identity>| {
        routes
            .choose(&Query {
                identity,
                ..Query::default()
            })
            .map(str::to_owned)
    };
    assert_eq!(ask(Some(&named("bob"))), Ok("inner".into()));
    assert_eq!(ask(Some(&named("mallory"))), Err(RouteRefusal::Denied));
    assert_eq!(ask(Some(&named("carol"))), Err(RouteRefusal::NoRoute));
    assert_eq!(ask(None), Err(RouteRefusal::NoRoute));
}

#[test]
fn a_name_with_odd_parts_does_not_evade_a_denial() {
    let rule = |action| Rule {
        identity: vec![who("uri:spiffe://corp/ns/**")],
        action,
        ..Rule::default()
    };
    let odd = Identity {
        uri: vec!["spiffe://corp/ns//../web".into()],
        ..Identity::default()
    };
    let query = Query {
        identity: Some(&odd),
        ..Query::default()
    };
    let rest = || Rule {
        action: to("rest"),
        ..Rule::default()
    };
    let refusing = Routes::new(vec![rule(Action::Deny), rest()]);
    assert_eq!(refusing.choose(&query), Err(RouteRefusal::Denied));
    let admitting = Routes::new(vec![rule(to("corp")), rest()]);
    assert_eq!(admitting.choose(&query), Ok("rest"));
}

/// A client that an identity could help must not be refused early; as many of the others as
/// possible must be.
#[test]
fn only_clients_that_no_identity_could_help_are_refused_before_the_handshake() {
    let rule = |sni: &str, identity: &[&str], action| Rule {
        sni: vec![pattern(sni)],
        identity: identity.iter().map(|text| who(text)).collect(),
        action,
        ..Rule::default()
    };
    let routes = Routes::new(vec![
        rule("a.example", &["cn:alice"], to("a")),
        rule("b.example", &["cn:mallory"], Action::Deny),
        rule("b.example", &[], to("b")),
        rule("c.example", &["cn:alice"], Action::Deny),
        rule("d.example", &[], Action::Deny),
        rule("d.example", &["cn:alice"], to("d")),
    ]);
    for (sni, somebody, nobody) in [
        ("a.example", Ok(()), Err(RouteRefusal::NoRoute)),
        ("b.example", Ok(()), Ok(())),
        (
            "c.example",
            Err(RouteRefusal::NoRoute),
            Err(RouteRefusal::NoRoute),
        ),
        (
            "d.example",
            Err(RouteRefusal::Denied),
            Err(RouteRefusal::Denied),
        ),
        (
            "e.example",
            Err(RouteRefusal::NoRoute),
            Err(RouteRefusal::NoRoute),
        ),
    ] {
        let query = Query {
            sni: Some(sni),
            ..Query::default()
        };
        assert_eq!(
            routes.expect(&query, Expecting::Somebody, Naming::Any),
            somebody,
            "{sni}"
        );
        assert_eq!(
            routes.expect(&query, Expecting::Nobody, Naming::Any),
            nobody,
            "{sni}"
        );
    }
}

/// A route that names no protocol may lead to a backend that speaks any, and the configuration does
/// not say which.
#[test]
fn a_protocol_that_only_other_rules_name_is_not_selected() {
    let rule = |sni: &str, alpn: &[&str]| Rule {
        sni: vec![pattern(sni)],
        alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
        action: to("any"),
        ..Rule::default()
    };
    let routes = Routes::new(vec![rule("new.example", &["h2"]), rule("*.example", &[])]);
    let ask = |sni, alpn, naming| {
        let query = Query {
            sni: Some(sni),
            alpn,
            ..Query::default()
        };
        routes.expect(&query, Expecting::Nobody, naming)
    };
    assert_eq!(ask("new.example", Some("h2"), Naming::Required), Ok(()));
    assert_eq!(
        ask("old.example", Some("h2"), Naming::Required),
        Err(RouteRefusal::NoRoute)
    );
    assert_eq!(ask("old.example", Some("h2"), Naming::Any), Ok(()));
    assert_eq!(ask("old.example", None, Naming::Any), Ok(()));
}

/// This holds for every rule behind it: the clients that the rule names must reach its backend.
#[test]
fn a_protocol_that_a_possible_rule_names_is_selected() {
    let rule = |alpn: &[&str], identity: &[&str], action| Rule {
        alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
        identity: identity.iter().map(|text| who(text)).collect(),
        action,
        ..Rule::default()
    };
    let alice = || rule(&["h2"], &["cn:alice"], to("inner"));
    let bob = || rule(&[], &["cn:bob"], to("bob"));
    for others in [
        vec![],
        vec![rule(&[], &[], to("rest"))],
        vec![rule(&["h2"], &[], to("rest"))],
        vec![rule(&["http/1.1"], &[], to("rest"))],
        // They learn it after the handshake, when their identity is known.
        vec![rule(&[], &[], Action::Deny)],
        vec![rule(&["h2"], &[], Action::Deny)],
        vec![bob(), rule(&[], &[], to("rest"))],
    ] {
        let rules = Routes::new([vec![alice()], others].concat());
        let query = Query {
            alpn: Some("h2"),
            ..Query::default()
        };
        let expect = |naming| rules.expect(&query, Expecting::Somebody, naming);
        assert_eq!(expect(Naming::Required), Ok(()), "{rules:?}");
        assert_eq!(expect(Naming::Any), Ok(()), "{rules:?}");
    }
}

/// For a rule that denies everything the question is repeated without the protocol: an earlier rule
/// may accept the client then.
#[test]
fn a_protocol_is_denied_by_a_rule_that_names_it() {
    let deny = |alpn: &[&str]| {
        let alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
        Routes::new(vec![Rule {
            alpn,
            ..Rule::default()
        }])
    };
    let query = Query {
        alpn: Some("h2"),
        ..Query::default()
    };
    for (routes, naming, expected) in [
        (deny(&["h2"]), Naming::Required, RouteRefusal::Denied),
        (deny(&["h2"]), Naming::Any, RouteRefusal::Denied),
        (deny(&[]), Naming::Required, RouteRefusal::NoRoute),
        (deny(&[]), Naming::Any, RouteRefusal::Denied),
    ] {
        let expected = Err(expected);
        assert_eq!(routes.expect(&query, Expecting::Nobody, naming), expected);
    }
}
