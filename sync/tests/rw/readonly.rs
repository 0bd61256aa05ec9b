//! Readers that store nothing: they work on a page that cannot be written.

use std::process::Command;

use memmap2::MmapMut;
use sync::{Latch, SeqCount, SeqLock, SpinLock};

/// What lies on the page.
struct Page {
    lock: SeqLock<[u64; 5]>,
    latch: Latch<[u64; 5]>,
    count: SeqCount,
    spin: SpinLock<u64>,
}

/// Makes a page that is read-only from now on, and runs `f` on it.
fn on_a_read_only_page(f: impl FnOnce(&Page)) {
    let mut memory = MmapMut::map_anon(4096).unwrap();
    let page = memory.as_mut_ptr().cast::<Page>();
    const { assert!(size_of::<Page>() <= 4096) };
    // SAFETY: a mapping is aligned to a page, large enough, and nobody else's.
    unsafe {
        page.write(Page {
            lock: SeqLock::new([1, 2, 3, 4, 5]),
            latch: Latch::new([6, 7, 8, 9, 10]),
            count: SeqCount::new(),
            spin: SpinLock::new(0),
        });
    }
    let memory = memory.make_read_only().unwrap();
    // SAFETY: written above; `Page` has nothing to drop, and ends with the mapping.
    f(unsafe { &*memory.as_ptr().cast::<Page>() });
}

#[test]
fn readers_store_nothing() {
    on_a_read_only_page(|page| {
        assert_eq!(page.lock.read(), [1, 2, 3, 4, 5]);
        assert_eq!(page.lock.try_read(), Some([1, 2, 3, 4, 5]));
        assert_eq!(page.latch.read(), [6, 7, 8, 9, 10]);
        assert_eq!(page.count.read(|| 11), 11);
        assert!(!page.spin.is_locked());
    });
}

/// What the test above would do if a reader stored: taking a lock does.
#[test]
fn a_store_to_the_page_is_deadly() {
    const IS_CHILD: &str = "QUIESCE_TEST_STORES_TO_A_READ_ONLY_PAGE";
    if std::env::var_os(IS_CHILD).is_some() {
        on_a_read_only_page(|page| drop(page.spin.lock()));
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "readonly::a_store_to_the_page_is_deadly"])
        .env(IS_CHILD, "1")
        .output()
        .unwrap();
    assert!(child.status.code().is_none(), "ended by a signal: {child:?}");
}
