//! Users and groups by name, from /etc/passwd and /etc/group. The C library's functions would need
//! unsafe code.

use std::fs;

/// The id of a user.
pub(crate) fn user(name: &str) -> Option<u32> {
    id(&read(PASSWD), name)
}

/// The id of a group.
pub(crate) fn group(name: &str) -> Option<u32> {
    id(&read(GROUP), name)
}

/// The groups of a user. `None` if the files do not have the user, as with a directory service.
pub(crate) fn groups_of(uid: u32) -> Option<Vec<u32>> {
    groups_in(&read(PASSWD), &read(GROUP), uid)
}

fn read(file: &str) -> String {
    let text = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// Lines of both files begin with `name:password:id:…`.
fn id(text: &str, name: &str) -> Option<u32> {
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let of_name = fields.into_iter().find(|fields| fields[0] == name)?;
    of_name.get(2)?.parse().ok()
}

fn groups_in(passwd: &str, group: &str, uid: u32) -> Option<Vec<u32>> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let number = |fields: &[String], index: usize| fields.get(index)?.parse::<u32>().ok();
    let users = passwd.lines().map(fields);
    let user = users.into_iter().find(|it| number(it, 2) == Some(uid))?;
    let mut groups: Vec<u32> = number(&user, 3).into_iter().collect();
    for it in group.lines().map(fields) {
        let has_user = it
            .get(3)
            .is_some_and(|members| members.split(',').any(|it| it == user[0]));
        groups.extend(number(&it, 2).filter(|_| has_user));
    }
    Some(groups)
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_members_are_found_and_nothing_else() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1001:2001::/:/bin/false\nodd\n";
        let group = "root:x:0:\nweb:x:2002:www,app\nops:x:2003:apple\n";
        assert_eq!(id(passwd, "app"), Some(1001));
        assert_eq!(id(group, "web"), Some(2002));
        assert_eq!(id(passwd, "ap"), None);
        assert_eq!(id(passwd, "odd"), None);
        assert_eq!(groups_in(passwd, group, 1001), Some(vec![2001, 2002]));
        assert_eq!(groups_in(passwd, group, 7), None);
        assert_eq!(user("root"), Some(0));
    }
}
