//! A signal number in the process: who uses it, and what stood there before.
//!
//! # Invariants
//! 1. While `refs` is not 0, or our handler stands in the action, `behind` names the action that ours replaced.
//! 2. `refs` goes from 0 to 1, and from 1 to 0, only under the lock; other changes are one exchange each.
//! 3. The lock is held only with all signals blocked, so nobody can wait for it on a thread that holds it. A lock whose holder is another
//!    process was copied by a fork and is free.
//! 4. What `behind` names is never freed; it is used again when the same action stands there again.
//! 5. `refs` is lowered before the action is put back: a handler that runs in between still finds `behind`. The other way round a thread
//!    could enter, see `refs`, and rely on a handler that is gone (protocol 7.8).
//!
//! # Async-signal-safety
//! What the handler uses is: [`Slot::behind`], [`Slot::previous`], [`Slot::original`], [`Slot::interrupters`].

use crate::atomic::{AtomicU32, AtomicU64, SeqCst};
use crate::engine::hooks::handler;
use crate::engine::node::Link;
use crate::engine::pool::Pool;
use crate::engine::record::LAST_SIGNAL;
use crate::engine::standing;
use crate::error::Refusal;
use crate::kernel::action::{self, Action};
use crate::kernel::{futex, mask, pid};
use crate::signal::Signal;
use once_cell::race::OnceBox;

static SLOTS: [Slot; LAST_SIGNAL] = [const { Slot::new() }; LAST_SIGNAL];
static BEHINDS: Pool<Behind> = Pool::new();
/// Somebody sleeps on the lock.
const CONTENDED: u32 = 1 << 31;

/// See the module.
#[derive(Debug)]
pub(crate) struct Slot {
    lock: AtomicU32,
    refs: AtomicU32,
    /// Index plus one, in BEHINDS.
    behind: AtomicU32,
    /// What `behind` named before it named something else.
    previous: AtomicU32,
    original: AtomicU32,
    /// Lanes whose number was blocked before.
    blocked: AtomicU32,
    /// Live scopes with an Interrupt policy.
    interrupting: AtomicU32,
    interrupters: Interrupter,
}

/// An action that ours replaced.
#[derive(Debug)]
pub(crate) struct Behind {
    sig: AtomicU32,
    action: OnceBox<Action>,
    /// It had SA_RESETHAND and has run.
    consumed: AtomicU32,
}

impl Behind {
    fn new() -> Behind {
        Behind { sig: AtomicU32::new(0), action: OnceBox::new(), consumed: AtomicU32::new(0) }
    }

    fn named(plus_one: &AtomicU32) -> Option<&'static Behind> {
        BEHINDS.get(plus_one.load(SeqCst).checked_sub(1)?).map(|place| &place.value)
    }

    /// What to do now: the action, or the default one if this was to be used once and was.
    pub(crate) fn action(&self) -> Action {
        match self.action.get() {
            Some(action) if self.consumed.load(SeqCst) == 0 => *action,
            _ => Action::DEFAULT,
        }
    }

    /// The action for one run of it: with SA_RESETHAND only the first caller gets it.
    pub(crate) fn action_to_run(&self) -> Action {
        let action = self.action();
        let once = action.is_handler() && action.has(libc::SA_RESETHAND);
        if once && self.consumed.swap(1, SeqCst) != 0 { Action::DEFAULT } else { action }
    }
}

/// A place for a scope with an Interrupt policy; the chain only grows.
#[derive(Debug)]
struct Interrupter {
    link: AtomicU64,
    next: OnceBox<Interrupter>,
}

impl Interrupter {
    const fn new() -> Interrupter {
        Interrupter { link: AtomicU64::new(0), next: OnceBox::new() }
    }
}

/// Somebody replaced our handler; theirs was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Displaced;

impl Slot {
    const fn new() -> Slot {
        Slot {
            lock: AtomicU32::new(0),
            refs: AtomicU32::new(0),
            behind: AtomicU32::new(0),
            previous: AtomicU32::new(0),
            original: AtomicU32::new(0),
            blocked: AtomicU32::new(0),
            interrupting: AtomicU32::new(0),
            interrupters: Interrupter::new(),
        }
    }

    /// The slot of a number from 1 to 64; of the last one for any other, which `enter` has refused.
    pub(crate) fn of(sig: i32) -> &'static Slot {
        static STRAY: Slot = Slot::new();
        SLOTS.get((sig as usize).wrapping_sub(1)).unwrap_or(&STRAY)
    }

    fn sig(&self) -> i32 {
        SLOTS.iter().position(|slot| std::ptr::eq(slot, self)).map_or(0, |at| at as i32 + 1)
    }

    /// What our handler stands in front of.
    pub(crate) fn behind(&self) -> Option<&'static Behind> {
        Behind::named(&self.behind)
    }

    /// What stood behind before that: what a dispatcher displaced that now stands behind ours.
    pub(crate) fn previous(&self) -> Option<&'static Behind> {
        Behind::named(&self.previous)
    }

    /// The first action ever saved for this number.
    pub(crate) fn original(&self) -> Option<&'static Behind> {
        Behind::named(&self.original)
    }

    /// Whether the caller is the only one.
    pub(crate) fn has_one_user(&self) -> bool {
        self.refs.load(SeqCst) == 1
    }

    /// Joins those who use the number already. No system call.
    pub(crate) fn try_join(&self) -> bool {
        let more = |n: u32| (n >= 1).then(|| n + 1);
        self.refs.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Leaves it to the others who use it. No system call.
    pub(crate) fn try_quit(&self) -> bool {
        let fewer = |n: u32| (n > 1).then(|| n - 1);
        self.refs.fetch_update(SeqCst, SeqCst, fewer).is_ok()
    }

    /// `Ignored`, if the action behind is to be ignored and the caller does not allow it.
    pub(crate) fn judge(&self, allow_ignored: bool) -> Result<(), Refusal> {
        match self.behind() {
            Some(behind) => judge(self.sig(), &behind.action(), allow_ignored),
            None => Ok(()),
        }
    }

    /// Puts our handler in, unless somebody else did meanwhile. Under the lock.
    ///
    /// # Errors
    /// `Ignored` as [`Slot::judge`]; `Os` if the kernel refuses. Nothing was changed then.
    pub(crate) fn take_over(&self, allow_ignored: bool) -> Result<(), Refusal> {
        if self.refs.load(SeqCst) > 0 {
            self.judge(allow_ignored)?;
            self.refs.fetch_add(1, SeqCst);
            return Ok(());
        }
        let sig = self.sig();
        let standing = action::current(sig).map_err(Refusal::Os)?;
        if standing.handler == handler() {
            self.judge(allow_ignored)?; // somebody put back what they had saved: `behind` still tells what is behind
            standing::is_ours(sig);
        } else {
            judge(sig, &standing, allow_ignored)?;
            self.remember(sig, standing);
            let replaced = action::install(sig, handler(), mirrored(&standing)).map_err(Refusal::Os)?;
            if !replaced.does_the_same_as(&standing) && replaced.handler != handler() {
                self.remember(sig, replaced.with_restorer_of(&standing)); // changed between look and installation
            }
        }
        self.refs.fetch_add(1, SeqCst);
        Ok(())
    }

    /// A lane was opened whose number was blocked.
    pub(crate) fn add_blocked(&self) {
        self.blocked.fetch_add(1, SeqCst);
    }

    pub(crate) fn remove_blocked(&self) {
        self.blocked.fetch_sub(1, SeqCst);
    }

    /// Whether more than one thread has a scope on this number that was blocked before.
    pub(crate) fn has_many_blocked(&self) -> bool {
        self.blocked.load(SeqCst) > 1
    }

    /// Puts back what was behind, if the caller was the last. Under the lock.
    pub(crate) fn give_back(&self) -> Result<(), Displaced> {
        let fewer = |n: u32| n.checked_sub(1);
        match self.refs.fetch_update(SeqCst, SeqCst, fewer) {
            Ok(1) => self.reinstate(),
            _ => Ok(()),
        }
    }

    fn reinstate(&self) -> Result<(), Displaced> {
        let sig = self.sig();
        let (Some(behind), Ok(standing)) = (self.behind(), action::current(sig)) else { return Err(Displaced) };
        if standing.handler != handler() {
            return Err(Displaced);
        }
        match action::swap(sig, &behind.action()) {
            Ok(replaced) if replaced.handler != handler() => {
                let _ = action::swap(sig, &replaced); // theirs came between look and swap
                Err(Displaced)
            }
            _ => Ok(()),
        }
    }

    /// Leaves at once; for a scope that was refused after it had joined.
    pub(crate) fn quit(&self) {
        if !self.try_quit() {
            let saved = mask::block_all();
            self.lock();
            let _ = self.give_back();
            self.unlock();
            mask::set(saved);
        }
    }

    fn remember(&self, sig: i32, action: Action) {
        let same = |b: &&'static _| is_same(b, sig, &action);
        let known = (0..BEHINDS.made()).filter_map(|i| BEHINDS.get(i)).find(|place| same(&&place.value));
        let place = known.unwrap_or_else(|| {
            let place = BEHINDS.take(Behind::new);
            let _ = place.value.action.set(Box::new(action)); // a place is taken once: it is never given back
            place.value.sig.store(sig as u32, SeqCst);
            place
        });
        place.value.consumed.store(0, SeqCst); // it stands in the kernel, so it is to run (once more)
        let _ = self.original.compare_exchange(0, place.index() + 1, SeqCst, SeqCst);
        let before = self.behind.swap(place.index() + 1, SeqCst);
        if before != place.index() + 1 {
            self.previous.store(before, SeqCst);
        }
    }

    /// All signals must be blocked (invariant 3).
    pub(crate) fn lock(&self) {
        let me = pid::current();
        loop {
            let word = self.lock.load(SeqCst);
            if word == 0 || word & !CONTENDED != me {
                if self.lock.compare_exchange(word, me, SeqCst, SeqCst).is_ok() {
                    return;
                }
            } else if self.lock.compare_exchange(word, word | CONTENDED, SeqCst, SeqCst).is_ok() {
                futex::wait(&self.lock, word | CONTENDED, None);
            }
        }
    }

    pub(crate) fn unlock(&self) {
        if self.lock.swap(0, SeqCst) & CONTENDED != 0 {
            futex::wake_all(&self.lock);
        }
    }

    /// Lists a scope with an Interrupt policy.
    pub(crate) fn add_interrupter(&self, link: Link) {
        self.interrupting.fetch_add(1, SeqCst);
        let mut place = &self.interrupters;
        while place.link.compare_exchange(0, link.to_bits(), SeqCst, SeqCst).is_err() {
            place = place.next.get_or_init(|| Box::new(Interrupter::new()));
        }
    }

    pub(crate) fn remove_interrupter(&self, link: Link) {
        let mine = |place: &&Interrupter| place.link.compare_exchange(link.to_bits(), 0, SeqCst, SeqCst).is_ok();
        if self.places().any(|place| mine(&place)) {
            self.interrupting.fetch_sub(1, SeqCst);
        }
    }

    /// The scopes with an Interrupt policy, on whatever thread. Some may have ended: their gates say so.
    pub(crate) fn interrupters(&self) -> impl Iterator<Item = Link> {
        let listed = self.interrupting.load(SeqCst) != 0;
        self.places().take_while(move |_| listed).filter_map(|place| Link::from_bits(place.link.load(SeqCst)))
    }

    fn places(&self) -> impl Iterator<Item = &Interrupter> {
        std::iter::successors(Some(&self.interrupters), |place| place.next.get())
    }

    /// In a forked child: the users that are left are `used` (the forking thread) or nobody.
    pub(crate) fn after_fork(&self, used: bool, blocked: bool, mine: impl Fn(Link) -> bool) {
        self.lock.store(0, SeqCst);
        for link in self.places().filter_map(|place| Link::from_bits(place.link.load(SeqCst))) {
            if !mine(link) {
                self.remove_interrupter(link);
            }
        }
        self.refs.store(u32::from(used), SeqCst);
        self.blocked.store(u32::from(blocked), SeqCst);
        if !used && self.behind.load(SeqCst) != 0 {
            let _ = self.reinstate();
        }
    }

    /// Every slot.
    pub(crate) fn all() -> impl Iterator<Item = (i32, &'static Slot)> {
        (1..).zip(SLOTS.iter())
    }
}

fn is_same(behind: &Behind, sig: i32, action: &Action) -> bool {
    behind.sig.load(SeqCst) == sig as u32 && behind.action.get() == Some(action)
}

fn judge(sig: i32, behind: &Action, allow_ignored: bool) -> Result<(), Refusal> {
    let ignored = behind.is_ignored() || behind.is_default() && Signal::from(sig).is_ignored_by_default();
    if ignored && !allow_ignored { Err(Refusal::Ignored) } else { Ok(()) }
}

/// The flags of our handler in front of this action (protocol 10): what the kernel does besides calling a handler stays as it was. Where calls
/// restart as before, our own signals end them by turning the restart (protocol 9).
pub(super) fn mirrored(behind: &Action) -> i32 {
    let onstack = if behind.is_handler() { behind.flags as i32 & libc::SA_ONSTACK } else { libc::SA_ONSTACK };
    let restart = if behind.is_handler() { behind.flags as i32 & libc::SA_RESTART } else { libc::SA_RESTART };
    let children = behind.flags as i32 & (libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT);
    let reaped = if behind.is_ignored() { libc::SA_NOCLDWAIT } else { 0 };
    onstack | restart | children | reaped
}
