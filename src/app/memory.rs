//! How much memory this process may use: what the machine has, or less where a control group says so.

use std::{fs, path::Path};

/// Sockets may hold so many-th a part of it, unless `limits.memory` says how much.
const PART: u64 = 4;
/// But at least so much: a few large frames.
const LEAST: u64 = 16 << 20;
/// What is assumed where the system does not tell.
const UNKNOWN: u64 = 1 << 30;

/// What sockets may hold where nothing is set.
pub fn for_sockets() -> u64 {
    let read = |path: &Path| fs::read_to_string(path).ok();
    (available(&read).unwrap_or(UNKNOWN) / PART).max(LEAST)
}

/// What the process may use, as the files of the system tell.
fn available(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|bus_handle| group_limit(bus_handle, read));
    machine.into_iter().chain(limits).min()
}

/// `MemTotal:       24634112 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let bus_handle = meminfo.lines().find_map(|bus_handle| bus_handle.strip_prefix("MemTotal:"))?;
    bus_handle.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// The least limit of a group and those around it; `bus_handle` is `0::/a/b` of version 2, or `9:memory:/a/b` of version 1. In a
/// container the path may be one of the machine outside: then the root is the container's own group.
fn group_limit(bus_handle: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut parts = bus_handle.splitn(3, ':').skip(1);
    let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/'));
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        list if list.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return None,
    };
    let root = Path::new(root);
    let inside = root.join(group);
    let around = inside.ancestors().take_while(|group| group.starts_with(root));
    // "max" is none
    around.filter_map(|group| read(&group.join(file))?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: (&str, &str) = ("/proc/meminfo", "MemTotal:        8000000 kB\nMemFree:  1 kB\n");

    fn available_of(files: &[(&str, &str)]) -> Option<u64> {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        available(&read)
    }

    #[test]
    fn the_least_of_machine_and_groups_holds() {
        let all = 8_000_000 << 10;
        let v2 = ("/proc/self/cgroup", "0::/system.slice/wellhead.service\n");
        let v1 = ("/proc/self/cgroup", "12:cpu,cpuacct:/\n9:memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n");
        assert_eq!(available_of(&[]), None);
        assert_eq!(available_of(&[MACHINE]), Some(all));
        assert_eq!(available_of(&[MACHINE, v2]), Some(all));
        let own = "/sys/fs/cgroup/system.slice/wellhead.service/memory.max";
        let slice = "/sys/fs/cgroup/system.slice/memory.max";
        assert_eq!(available_of(&[MACHINE, v2, (own, "max\n")]), Some(all));
        assert_eq!(available_of(&[MACHINE, v2, (own, "268435456\n")]), Some(268_435_456));
        assert_eq!(available_of(&[MACHINE, v2, (own, "max\n"), (slice, "1048576\n")]), Some(1_048_576));
        assert_eq!(available_of(&[v2, (own, "2\n"), (slice, "1\n")]), Some(1));
        // a container sees its own group as the root
        let inside = ("/proc/self/cgroup", "0::/\n");
        assert_eq!(available_of(&[MACHINE, inside, ("/sys/fs/cgroup/memory.max", "77\n")]), Some(77));

        let root = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(available_of(&[MACHINE, v1, (root, "9223372036854771712\n")]), Some(all));
        assert_eq!(available_of(&[MACHINE, v1, (root, "88\n")]), Some(88));
        let own = "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes";
        assert_eq!(available_of(&[MACHINE, v1, (root, "9223372036854771712\n"), (own, "99\n")]), Some(99));
    }

    #[test]
    fn whatever_the_files_hold_is_no_harm() {
        for text in ["", "MemTotal:", "MemTotal: x kB", "MemTotal: 18446744073709551615 kB", "\0"] {
            assert_eq!(available_of(&[("/proc/meminfo", text)]), None, "{text:?}");
        }
        for bus_handle in ["", ":", "::", "0::", "0::/../..", "a:b:c:d"] {
            assert_eq!(
                available_of(&[MACHINE, ("/proc/self/cgroup", bus_handle)]),
                Some(8_000_000 << 10),
                "{bus_handle:?}"
            );
        }
    }

    #[test]
    fn here_sockets_may_hold_something() {
        assert!(for_sockets() >= LEAST);
    }
}
