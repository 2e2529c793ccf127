//! What the kernel says of memory: of this process, of its control group, of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Memory that the process holds and that is on no disk, in bytes.
pub(super) fn own() -> Option<u64> {
    kilobytes("/proc/self/status", "RssAnon:")
}

/// Memory that the machine could still give, in bytes.
pub(super) fn to_spare() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

fn kilobytes(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number << 10)
}

/// The control group whose bound this process meets first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Its bound in bytes.
    pub(super) most: u64,
    folder: PathBuf,
    names: Names,
}

/// What the files of a version are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Names {
    most: &'static str,
    used: &'static str,
    /// In `memory.stat`: pages of files, which the kernel drops before it ends a process.
    cached: [&'static str; 2],
}

const V2: Names = Names { most: "memory.max", used: "memory.current", cached: ["inactive_file ", "active_file "] };
const V1: Names = Names {
    most: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: ["total_inactive_file ", "total_active_file "],
};

impl Group {
    /// Looks where systems keep them. `None` where no group has a bound.
    pub(super) fn find() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let machine = kilobytes("/proc/meminfo", "MemTotal:").unwrap_or(u64::MAX);
        Self::among(&groups, Path::new("/sys/fs/cgroup"), machine)
    }

    /// The smallest bound of the groups that this process is in, if it is less than what the machine has.
    fn among(groups: &str, root: &Path, machine: u64) -> Option<Self> {
        let of = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/').to_owned());
            match controllers {
                "" => Some((root.to_owned(), path, V2)),
                _ if controllers.split(',').any(|name| name == "memory") => Some((root.join("memory"), path, V1)),
                _ => None,
            }
        };
        let all = groups.lines().filter_map(of).flat_map(|(mount, path, names)| {
            // In a container the path may be that of the machine, and the mount the group itself.
            let above: Vec<PathBuf> = Path::new(&path).ancestors().map(|below| mount.join(below)).collect();
            above.into_iter().filter_map(move |folder| {
                let most = number(&folder.join(names.most)).filter(|most| *most < machine)?;
                Some(Self { most, folder, names })
            })
        });
        all.min_by_key(|group| group.most)
    }

    /// What it uses, without pages of files. A machine that compiles or serves files has them all over, and is not short of
    /// memory.
    pub(super) fn used(&self) -> Option<u64> {
        let used = number(&self.folder.join(self.names.used))?;
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let of =
            |line: &str| self.names.cached.iter().find_map(|name| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        Some(used.saturating_sub(stat.lines().filter_map(of).sum()))
    }
}

/// The number in a file; `None` for `max`.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in list {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_bound_of_a_group_and_those_above_it_counts() {
        let root = files(&[
            ("a/b/memory.max", "max\n"),
            ("a/memory.max", "1000\n"),
            ("a/memory.current", "700\n"),
            ("a/memory.stat", "anon 300\nfile 400\ninactive_file 250\nactive_file 150\n"),
            ("memory.max", "5000\n"),
        ]);
        let group = Group::among("0::/a/b\n", root.path(), 1 << 40).unwrap();
        assert_eq!((group.most, group.used()), (1000, Some(300)));
        assert_eq!(Group::among("0::/a/b\n", root.path(), 900), None, "the machine has less");
        assert_eq!(Group::among("0::/x\n", root.path(), 1 << 40).unwrap().most, 5000);
        assert_eq!(Group::among("0::/\n", &root.path().join("a/b"), 1 << 40), None);
    }

    #[test]
    fn the_first_version_is_known_too() {
        let root = files(&[
            ("memory/a/memory.limit_in_bytes", "2000\n"),
            ("memory/a/memory.usage_in_bytes", "1500\n"),
            ("memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 500\ntotal_active_file 200\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let group = Group::among("9:name=systemd:/\n4:cpu,memory:/a\n0::/\n", root.path(), 1 << 40).unwrap();
        assert_eq!((group.most, group.used()), (2000, Some(800)));
        assert_eq!(Group::among("4:memory:/b\n", root.path(), 1 << 40), None);
    }
}
