//! Keeps the memory of the process, which contains keys, out of core dumps and debuggers.

use std::io;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// From now on the kernel writes no core dump of this process, and other processes of its user may not
/// read its memory (PR_SET_DUMPABLE(2const)).
///
/// # Errors
///
/// The kernel's error. As much as possible was forbidden.
pub(crate) fn forbid() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    // The hard limit stays: a successor may be configured to write dumps.
    let none = Rlimit {
        current: Some(0),
        maximum,
    };
    let limited = setrlimit(Resource::Core, none);
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    limited.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn neither_a_core_dump_nor_a_debugger_of_the_user_sees_the_memory() {
        forbid().expect("the kernel");
        let behavior = dumpable_behavior().expect("the kernel");
        assert_eq!(behavior, DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}
