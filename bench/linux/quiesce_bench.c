// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Linux's side of `cargo xtask bench compare`: what its operations cost.
 *
 * 1. Everything is done by one kernel thread of the real-time class, on the last CPU; its partner, where there is one, is
 *    on the CPU before. Loading the module starts the thread and waits for it.
 * 2. Short operations are timed a thousand at a time, BATCHES times, and the median loop around nothing is subtracted.
 *    Long ones are timed one by one, and the median of two readings of the clock is subtracted.
 * 3. Each gives one line: BENCH name median unit min=.. p99=.. max=.. samples=..
 *
 * docs/benchmarks.md defines each operation; kernel/src/bench/suite is the other side. Numbers are kept in thousandths
 * of the unit: picoseconds, of nanoseconds.
 */
#define pr_fmt(fmt) fmt

#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/rwlock.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/semaphore.h>
#include <linux/seqlock.h>
#include <linux/smp.h>
#include <linux/sort.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/timer.h>
#include <linux/utsname.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <asm/fpu/api.h>

#define TURNS 1000
#define BATCHES 101
#define WARM 3
#define SINGLES 301
#define MANY 100000
#define MOST 1024

static char *only = "";
module_param(only, charp, 0);
MODULE_PARM_DESC(only, "parts of names, separated by commas, those not wanted with ! before them; nothing for all");
static int throughput_ms = 300;
module_param(throughput_ms, int, 0);
MODULE_PARM_DESC(throughput_ms, "how long all CPUs contend, in milliseconds");

static u64 samples[MOST];
static u64 empty_loop_ns, clock_ns;
static unsigned int turns = TURNS;
static int here, there;

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static u64 at(unsigned int n, unsigned int percent)
{
	return samples[(u64)(n - 1) * percent / 100];
}

#define THOUSANDTHS(x) (x) / 1000, (x) % 1000

/* Prints the first n samples, which are in thousandths of the unit. */
static void emit(const char *name, const char *unit, unsigned int n, const char *more)
{
	sort(samples, n, sizeof(samples[0]), compare, NULL);
	pr_info("BENCH %s %llu.%03llu %s min=%llu.%03llu p99=%llu.%03llu max=%llu.%03llu samples=%u%s\n", name,
		THOUSANDTHS(at(n, 50)), unit, THOUSANDTHS(at(n, 0)), THOUSANDTHS(at(n, 99)), THOUSANDTHS(at(n, 100)), n, more);
}

static u64 minus(u64 gross, u64 overhead)
{
	return gross > overhead ? gross - overhead : 0;
}

/* How long `turns` turns take, in nanoseconds. */
#define LOOP(BODY) ({								\
	u64 begun_;								\
	unsigned int turn = READ_ONCE(turns);					\
	begun_ = ktime_get_ns();						\
	/* Downwards, so that the loop is two instructions around whatever is in it. */ \
	for (; turn; turn--) {							\
		BODY;								\
		barrier();							\
	}									\
	ktime_get_ns() - begun_; })

/* An operation that is timed a thousand at a time. */
#define ALONE(NAME, SETUP, BODY, AFTER)						\
static void run_##NAME(const char *name)					\
{										\
	unsigned int batch;							\
	SETUP;									\
	for (batch = 0; batch < WARM + BATCHES; batch++) {			\
		u64 ns = LOOP(BODY);						\
		if (batch >= WARM)						\
			samples[batch - WARM] = minus(ns, empty_loop_ns) * 1000 / TURNS; \
	}									\
	AFTER;									\
	emit(name, "ns", BATCHES, "");						\
}

/* An operation that is timed by itself. */
#define EACH(NAME, TIMES, SETUP, BODY, AFTER)					\
static void run_##NAME(const char *name)					\
{										\
	unsigned int time;							\
	SETUP;									\
	for (time = 0; time < WARM + (TIMES); time++) {				\
		u64 begun = ktime_get_ns();					\
		BODY;								\
		if (time >= WARM)						\
			samples[time - WARM] = minus(ktime_get_ns() - begun, clock_ns) * 1000; \
	}									\
	AFTER;									\
	emit(name, "ns", TIMES, "");						\
}

/* A function of its own, so that the loop that is subtracted and the one that is printed are the same. */
static noinline u64 empty_loop(void)
{
	return LOOP();
}

/* What the overhead is. Everything else depends on it. */
static void find_overhead(void)
{
	unsigned int i;

	for (i = 0; i < SINGLES; i++) {
		u64 begun = ktime_get_ns();
		samples[i] = ktime_get_ns() - begun;
	}
	sort(samples, SINGLES, sizeof(samples[0]), compare, NULL);
	clock_ns = at(SINGLES, 50);
	for (i = 0; i < SINGLES; i++)
		samples[i] = empty_loop();
	sort(samples, SINGLES, sizeof(samples[0]), compare, NULL);
	empty_loop_ns = at(SINGLES, 50);
}

static void run_empty_loop(const char *name)
{
	unsigned int batch;

	for (batch = 0; batch < BATCHES; batch++)
		samples[batch] = minus(empty_loop(), clock_ns) * 1000 / TURNS;
	emit(name, "ns", BATCHES, "");
}

/* ---- one CPU, nobody else ---- */

struct item {
	struct list_head link;
	u64 value;
};

static DEFINE_SPINLOCK(spin);
static DEFINE_RWLOCK(rw);
static DEFINE_SEQLOCK(seq);
static DEFINE_MUTEX(mutex);
static DECLARE_RWSEM(rwsem);
static DEFINE_SEMAPHORE(semaphore);
static DECLARE_WAIT_QUEUE_HEAD(queue);
static DEFINE_PER_CPU(u64, counter);
static atomic64_t count = ATOMIC64_INIT(0);
static LIST_HEAD(head);
static struct item item;
static u64 word;
static u64 __rcu *shared = (u64 __rcu __force *)&word;
DEFINE_STATIC_SRCU(srcu);

static u64 read_word(void)
{
	unsigned int start;
	u64 value;

	do {
		start = read_seqbegin(&seq);
		value = READ_ONCE(word);
	} while (read_seqretry(&seq, start));
	return value;
}

ALONE(preempt_disable_enable, , { preempt_disable(); preempt_enable(); }, )
ALONE(local_irq_save_restore, unsigned long f, { local_irq_save(f); local_irq_restore(f); }, )
ALONE(local_irq_disable_enable, , { local_irq_disable(); local_irq_enable(); }, )
ALONE(local_bh_disable_enable, , { local_bh_disable(); local_bh_enable(); }, )
ALONE(spin_lock_unlock, , { spin_lock(&spin); spin_unlock(&spin); }, )
ALONE(spin_lock_irqsave_restore, unsigned long f,
      { spin_lock_irqsave(&spin, f); spin_unlock_irqrestore(&spin, f); }, )
ALONE(spin_lock_irq, , { spin_lock_irq(&spin); spin_unlock_irq(&spin); }, )
ALONE(spin_lock_bh, , { spin_lock_bh(&spin); spin_unlock_bh(&spin); }, )
ALONE(spin_trylock_unlock, , { if (spin_trylock(&spin)) spin_unlock(&spin); }, )
ALONE(read_lock_unlock, , { read_lock(&rw); read_unlock(&rw); }, )
ALONE(write_lock_unlock, , { write_lock(&rw); write_unlock(&rw); }, )
ALONE(seqlock_read, , { (void)read_word(); }, )
ALONE(seqlock_write, , { write_seqlock(&seq); WRITE_ONCE(word, 1); write_sequnlock(&seq); }, )
ALONE(mutex_lock_unlock, , { mutex_lock(&mutex); mutex_unlock(&mutex); }, )
ALONE(rwsem_down_up_read, , { down_read(&rwsem); up_read(&rwsem); }, )
ALONE(rwsem_down_up_write, , { down_write(&rwsem); up_write(&rwsem); }, )
ALONE(semaphore_down_up, , { down(&semaphore); up(&semaphore); }, )
ALONE(atomic_inc, , { atomic64_inc(&count); }, )
ALONE(this_cpu_inc, , { this_cpu_inc(counter); }, )
ALONE(rcu_read_lock_unlock, , { rcu_read_lock(); rcu_read_unlock(); }, )
ALONE(rcu_deref_section, u64 sum = 0, { rcu_read_lock(); sum += *rcu_dereference(shared); OPTIMIZER_HIDE_VAR(sum); rcu_read_unlock(); }, )
ALONE(srcu_read_lock_unlock, , { int i = srcu_read_lock(&srcu); srcu_read_unlock(&srcu, i); }, )
ALONE(list_add_del, , { list_add_tail(&item.link, &head); list_del(&item.link); }, )
ALONE(complete_wait_nonblocking, DECLARE_COMPLETION_ONSTACK(done), { complete(&done); wait_for_completion(&done); }, )
ALONE(wake_up_empty_waitqueue, , { wake_up(&queue); }, )
ALONE(kernel_fpu_begin_end, , { kernel_fpu_begin(); kernel_fpu_end(); }, )
ALONE(ktime_get, u64 sum = 0, { sum += ktime_get_ns(); OPTIMIZER_HIDE_VAR(sum); }, )
ALONE(cond_resched, , { cond_resched(); }, )

/* ---- deferred work ---- */

static void tasklet_nothing(struct tasklet_struct *t) { }
static DECLARE_TASKLET(tasklet, tasklet_nothing);
ALONE(tasklet_raise_to_run, , { local_bh_disable(); tasklet_schedule(&tasklet); local_bh_enable(); }, )

static void irq_work_nothing(struct irq_work *w) { }
static struct irq_work irq_work = IRQ_WORK_INIT_HARD(irq_work_nothing);
ALONE(irq_work_self_ipi, , { irq_work_queue(&irq_work); while (irq_work_is_busy(&irq_work)) cpu_relax(); }, )

static u64 called_at;
static void work_called(struct work_struct *w) { WRITE_ONCE(called_at, ktime_get_ns()); }
static DECLARE_WORK(work, work_called);

static void run_workqueue_queue_to_run_same_cpu(const char *name)
{
	unsigned int i;

	for (i = 0; i < WARM + SINGLES; i++) {
		u64 begun = ktime_get_ns();

		queue_work_on(here, system_wq, &work);
		flush_work(&work);
		if (i >= WARM)
			samples[i - WARM] = minus(READ_ONCE(called_at) - begun, clock_ns) * 1000;
	}
	emit(name, "ns", SINGLES, "");
}

/* ---- turns of two tasks ---- */

#define PING_TURNS 100
#define PING_TRIES 31

struct side {
	struct completion done;
	wait_queue_head_t queue;
	int set;
};

static struct side sides[2];
static bool by_completion;

static void send(struct side *side)
{
	if (by_completion) {
		complete(&side->done);
	} else {
		smp_store_release(&side->set, 1);
		wake_up(&side->queue);
	}
}

static void receive(struct side *side)
{
	if (by_completion) {
		wait_for_completion(&side->done);
	} else {
		wait_event(side->queue, smp_load_acquire(&side->set));
		WRITE_ONCE(side->set, 0);
	}
}

static int ping_partner(void *unused)
{
	int i;

	for (i = 0; i < PING_TURNS * (PING_TRIES + WARM); i++) {
		receive(&sides[1]);
		send(&sides[0]);
	}
	return 0;
}

static void pingpong(const char *name, int cpu, bool completions)
{
	struct task_struct *partner;
	int try, i;

	by_completion = completions;
	for (i = 0; i < 2; i++) {
		init_completion(&sides[i].done);
		init_waitqueue_head(&sides[i].queue);
		sides[i].set = 0;
	}
	partner = kthread_create(ping_partner, NULL, "bench/partner");
	if (IS_ERR(partner))
		return;
	kthread_bind(partner, cpu);
	sched_set_fifo(partner);
	wake_up_process(partner);
	for (try = 0; try < PING_TRIES + WARM; try++) {
		u64 begun = ktime_get_ns();

		for (i = 0; i < PING_TURNS; i++) {
			send(&sides[1]);
			receive(&sides[0]);
		}
		if (try >= WARM)
			samples[try - WARM] = (ktime_get_ns() - begun) * 1000 / (2 * PING_TURNS);
	}
	emit(name, "ns", PING_TRIES, "");
}

static void run_pingpong_completion_same_cpu(const char *name) { pingpong(name, here, true); }
static void run_pingpong_waitqueue_same_cpu(const char *name) { pingpong(name, here, false); }
static void run_pingpong_completion_cross_cpu(const char *name) { pingpong(name, there, true); }
static void run_pingpong_waitqueue_cross_cpu(const char *name) { pingpong(name, there, false); }

/* ---- timers ---- */

static void timer_nothing(struct timer_list *t) { }
static DEFINE_TIMER(timer, timer_nothing);
static DEFINE_TIMER(other_timer, timer_nothing);

/* Somebody else is always armed, so that no turn is about an empty wheel. */
#define TIMERS(NAME, BEFORE, BODY)						\
	ALONE(NAME, unsigned long base = jiffies + 10 * HZ; mod_timer(&other_timer, jiffies + 1000 * HZ); BEFORE, BODY, \
	      { del_timer_sync(&timer); del_timer_sync(&other_timer); })

TIMERS(add_timer_timer_delete_pair, , { timer.expires = base; add_timer(&timer); del_timer(&timer); })
TIMERS(mod_timer_pending_requeue, mod_timer(&timer, base), { mod_timer(&timer, base + (turn & 1) * 4096); })
TIMERS(mod_timer_pending_same_bucket, mod_timer(&timer, base), { mod_timer(&timer, base); })

static struct timer_list *timers;
/* Until the next first or last call of a group, of so many timers. */
static u64 group_left = 1, group_size, groups_done;
static u64 group_begun, groups_ns;

static noinline void group_edge(void)
{
	u64 now = ktime_get_ns();

	if (!group_begun) {
		group_begun = now;
		group_left = group_size - 1;
		return;
	}
	groups_ns += now - group_begun;
	group_begun = 0;
	group_left = 1;
	WRITE_ONCE(groups_done, groups_done + 1);
}

/* As few instructions as will do: they count. */
static void timer_called(struct timer_list *t)
{
	if (unlikely(!--group_left))
		group_edge();
}

static bool make_timers(void)
{
	u32 i;

	timers = vmalloc(array_size(MANY, sizeof(*timers)));
	if (!timers)
		return false;
	for (i = 0; i < MANY; i++)
		timer_setup(&timers[i], timer_called, 0);
	return true;
}

/* Arms and deletes many timers, due in 4,000 different ticks, and says what one of the two costs each. */
static void many(const char *name, bool deletes)
{
	u32 try, i;
	const u32 tries = 5;

	if (!make_timers())
		return;
	for (try = 0; try < tries; try++) {
		unsigned long base = jiffies + 20 * HZ;
		u64 begun = ktime_get_ns(), armed;

		for (i = 0; i < MANY; i++) {
			timers[i].expires = base + i % 4000;
			add_timer(&timers[i]);
		}
		armed = ktime_get_ns();
		for (i = 0; i < MANY; i++)
			del_timer(&timers[i]);
		samples[try] = (deletes ? ktime_get_ns() - armed : armed - begun) * 1000 / MANY;
	}
	vfree(timers);
	emit(name, "ns", tries, "");
}

static void run_add_timer_1e5(const char *name) { many(name, false); }
static void run_timer_delete_1e5(const char *name) { many(name, true); }

/* From the first to the last call of each group. */
static void mass_expiry(const char *name, u32 groups)
{
	u32 try, i;
	const u32 tries = 3;

	if (!make_timers())
		return;
	group_size = MANY / groups;
	for (try = 0; try < tries; try++) {
		unsigned long base = jiffies + 2 * HZ;

		groups_done = 0;
		groups_ns = 0;
		for (i = 0; i < MANY; i++) {
			timers[i].expires = base + i / (MANY / groups) * 64;
			add_timer(&timers[i]);
		}
		while (READ_ONCE(groups_done) < groups)
			msleep(50);
		for (i = 0; i < MANY; i++)
			del_timer_sync(&timers[i]);
		samples[try] = groups_ns * 1000 / MANY;
	}
	vfree(timers);
	emit(name, "ns", tries, "");
}

static void run_mass_expiry_1jiffy_1e5(const char *name) { mass_expiry(name, 1); }
static void run_mass_expiry_10jiffies_1e5(const char *name) { mass_expiry(name, 10); }

static struct hrtimer hrtimer;
static volatile u64 fired_at;
static enum hrtimer_restart hrtimer_called(struct hrtimer *t)
{
	fired_at = ktime_get_ns();
	return HRTIMER_NORESTART;
}

#define HRTIMERS(NAME, SETUP, BODY)						\
	ALONE(NAME, hrtimer_init(&hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_SOFT); hrtimer.function = hrtimer_called; SETUP, \
	      BODY, hrtimer_cancel(&hrtimer))

HRTIMERS(hrtimer_start_cancel_far, u64 base = ktime_get_ns() + 3600 * NSEC_PER_SEC,
	 { hrtimer_start(&hrtimer, ns_to_ktime(base + turn), HRTIMER_MODE_ABS_SOFT); hrtimer_cancel(&hrtimer); })
HRTIMERS(hrtimer_start_cancel_near, ,
	 { hrtimer_start(&hrtimer, ns_to_ktime(ktime_get_ns() + NSEC_PER_MSEC), HRTIMER_MODE_ABS_SOFT); hrtimer_cancel(&hrtimer); })

static void hrtimer_latency(const char *name, bool busy)
{
	unsigned int i;

	hrtimer_init(&hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
	hrtimer.function = hrtimer_called;
	for (i = 0; i < WARM + BATCHES; i++) {
		u64 due = ktime_get_ns() + NSEC_PER_MSEC;

		fired_at = 0;
		hrtimer_start(&hrtimer, ns_to_ktime(due), HRTIMER_MODE_ABS_HARD);
		while (!fired_at) {
			if (busy)
				cpu_relax();
			else
				usleep_range(5000, 5000);
		}
		if (i >= WARM)
			samples[i - WARM] = (fired_at - due) * 1000;
	}
	emit(name, "ns", BATCHES, "");
}

static void run_hrtimer_latency_idle(const char *name) { hrtimer_latency(name, false); }
static void run_hrtimer_latency_busy(const char *name) { hrtimer_latency(name, true); }

/* How many ticks after its time each of LATE timers is called, armed `least` to `most` ticks ahead. */
#define LATE 64

static struct late {
	struct timer_list timer;
	unsigned long asked;
	unsigned long late;
} late[LATE];
static u32 late_called;

static void late_fired(struct timer_list *t)
{
	struct late *l = from_timer(l, t, timer);

	l->late = jiffies - l->asked;
	late_called++;
}

static void timer_late(const char *name, u32 least, u32 most)
{
	/* How many were called in time, 1 tick late, 2 to 3, 4 to 7, ..: fls() is the class. */
	static u32 classes[33];
	static char histogram[256];
	u32 i, last = 0, at;

	late_called = 0;
	memset(classes, 0, sizeof(classes));
	for (i = 0; i < LATE; i++) {
		timer_setup(&late[i].timer, late_fired, 0);
		late[i].asked = jiffies + least + (most - least) * i / LATE;
		mod_timer(&late[i].timer, late[i].asked);
	}
	while (READ_ONCE(late_called) < LATE)
		msleep(20);
	for (i = 0; i < LATE; i++) {
		del_timer_sync(&late[i].timer);
		samples[i] = late[i].late * 1000;
		classes[fls((u32)late[i].late)]++;
		last = max_t(u32, last, fls((u32)late[i].late));
	}
	at = scnprintf(histogram, sizeof(histogram), " histogram=%u", classes[0]);
	for (i = 1; i <= last; i++)
		at += scnprintf(histogram + at, sizeof(histogram) - at, ",%u", classes[i]);
	emit(name, "ticks", LATE, histogram);
}

static void run_timer_late_L0(const char *name) { timer_late(name, 8, 60); }
static void run_timer_late_L1(const char *name) { timer_late(name, 70, 500); }
static void run_timer_late_L2(const char *name) { timer_late(name, 520, 1500); }

/* ---- RCU ---- */

static u32 callbacks_called;
static void callback(struct rcu_head *h) { callbacks_called++; }

static void call_rcu_1e5(const char *name, bool to_barrier)
{
	const u32 tries = 5;
	struct rcu_head *heads = vmalloc(array_size(MANY, sizeof(*heads)));
	u32 try, i;

	if (!heads)
		return;
	for (try = 0; try < tries; try++) {
		u64 begun = ktime_get_ns(), queued;

		for (i = 0; i < MANY; i++)
			call_rcu(&heads[i], callback);
		queued = ktime_get_ns();
		rcu_barrier();
		samples[try] = ((to_barrier ? ktime_get_ns() : queued) - begun) * 1000 / MANY;
	}
	vfree(heads);
	emit(name, "ns", tries, "");
}

static void run_call_rcu_enqueue_1e5(const char *name) { call_rcu_1e5(name, false); }
static void run_call_rcu_to_barrier_1e5(const char *name) { call_rcu_1e5(name, true); }
EACH(synchronize_rcu, 31, , { synchronize_rcu(); }, )
EACH(synchronize_rcu_expedited, 101, , { synchronize_rcu_expedited(); }, )
EACH(rcu_barrier_idle, 101, , { rcu_barrier(); }, )
EACH(synchronize_srcu, 31, , { synchronize_srcu(&srcu); }, )

/* ---- other CPUs ---- */

static void nothing(void *unused) { }

EACH(smp_call_single, SINGLES, , { smp_call_function_single(there, nothing, NULL, 1); }, )
EACH(smp_call_function_all, SINGLES, , { preempt_disable(); smp_call_function(nothing, NULL, 1); preempt_enable(); }, )

/* ---- all CPUs want the same ---- */

static struct {
	int over ____cacheline_aligned;
	struct { spinlock_t lock; u64 count; } spin ____cacheline_aligned;
	struct { struct mutex lock; u64 count; } mutex ____cacheline_aligned;
	struct { rwlock_t lock; u64 value; } rw ____cacheline_aligned;
	struct { seqlock_t lock; u64 value; } seq ____cacheline_aligned;
	struct { refcount_t count; u64 value; } ref ____cacheline_aligned;
	u64 value ____cacheline_aligned;
} contested __aligned(4096);

enum kind { SPIN, SPIN_IRQSAVE, MUTEX, RWLOCK_READ, SEQLOCK_READ, REFCOUNT_READ, RCU_READ };

static struct {
	enum kind kind;
	int cpus;
	atomic_t arrived, left;
	u64 begun, ended;
	u64 counts[NR_CPUS];
} round;

static u64 u64_rcu_dereference_value(void)
{
	u64 *p = &contested.value;

	return READ_ONCE(*p);
}

static noinline void look(void)
{
	u64 now = ktime_get_ns();

	if (now >= round.begun + (u64)throughput_ms * NSEC_PER_MSEC && !xchg(&contested.over, 1))
		WRITE_ONCE(round.ended, now);
}

#define COUNT(BODY) do {							\
	while (!READ_ONCE(contested.over)) {					\
		BODY;								\
		if (++times % 64 == 0)						\
			look();							\
	}									\
} while (0)

static int contender(void *cpu)
{
	unsigned int start;
	unsigned long flags;
	u64 times = 0, value;

	if (atomic_inc_return(&round.arrived) == round.cpus)
		smp_store_release(&round.begun, ktime_get_ns());
	while (!smp_load_acquire(&round.begun))
		cpu_relax();
	switch (round.kind) {
	case SPIN:
		COUNT({ spin_lock(&contested.spin.lock); contested.spin.count++; spin_unlock(&contested.spin.lock); });
		break;
	case SPIN_IRQSAVE:
		COUNT({ spin_lock_irqsave(&contested.spin.lock, flags); contested.spin.count++;
			spin_unlock_irqrestore(&contested.spin.lock, flags); });
		break;
	case MUTEX:
		COUNT({ mutex_lock(&contested.mutex.lock); contested.mutex.count++; mutex_unlock(&contested.mutex.lock); });
		break;
	case RWLOCK_READ:
		COUNT({ read_lock(&contested.rw.lock); value = READ_ONCE(contested.rw.value); read_unlock(&contested.rw.lock); });
		break;
	case SEQLOCK_READ:
		COUNT({ do { start = read_seqbegin(&contested.seq.lock); value = READ_ONCE(contested.seq.value);
			} while (read_seqretry(&contested.seq.lock, start)); });
		break;
	case REFCOUNT_READ:
		COUNT({ refcount_inc(&contested.ref.count); value = READ_ONCE(contested.ref.value);
			if (refcount_dec_and_test(&contested.ref.count))
				pr_warn("the last reference is gone\n"); });
		break;
	case RCU_READ:
		COUNT({ rcu_read_lock(); value = u64_rcu_dereference_value(); rcu_read_unlock(); });
		break;
	}
	(void)value;
	round.counts[(long)cpu] = times;
	atomic_dec(&round.left);
	return 0;
}

static void throughput(const char *name, enum kind kind)
{
	const u32 tries = 3;
	u64 fairness = 1000;
	char more[32];
	u32 try;
	int cpu;

	for (try = 0; try < tries; try++) {
		u64 total = 0, least = ~0ULL, most = 1;

		memset(&round, 0, sizeof(round));
		contested.over = 0;
		round.kind = kind;
		round.cpus = num_online_cpus();
		atomic_set(&round.left, round.cpus);
		for_each_online_cpu(cpu) {
			struct task_struct *t = kthread_create(contender, (void *)(long)cpu, "bench/%d", cpu);

			if (IS_ERR(t))
				return;
			kthread_bind(t, cpu);
			wake_up_process(t);
		}
		while (atomic_read(&round.left))
			msleep(20);
		for_each_online_cpu(cpu) {
			total += round.counts[cpu];
			least = min(least, round.counts[cpu]);
			most = max(most, round.counts[cpu]);
		}
		samples[try] = total * 1000000 / (round.ended - round.begun);
		fairness = min(fairness, least * 1000 / most);
	}
	snprintf(more, sizeof(more), " fairness=%llu.%03llu", THOUSANDTHS(fairness));
	emit(name, "Mops/s", tries, more);
}

static void run_spinlock_throughput(const char *name) { throughput(name, SPIN); }
static void run_spinlock_irqsave_throughput(const char *name) { throughput(name, SPIN_IRQSAVE); }
static void run_mutex_throughput(const char *name) { throughput(name, MUTEX); }
static void run_rwlock_read_throughput(const char *name) { throughput(name, RWLOCK_READ); }
static void run_seqlock_read_throughput(const char *name) { throughput(name, SEQLOCK_READ); }
static void run_refcount_read_throughput(const char *name) { throughput(name, REFCOUNT_READ); }
static void run_rcu_read_throughput(const char *name) { throughput(name, RCU_READ); }

/* ---- the table ---- */

static const struct benchmark {
	const char *name;
	int cpus; /* at least */
	void (*run)(const char *name);
} benchmarks[] = {
#define B(NAME, CPUS) { #NAME, CPUS, run_##NAME }
	B(empty_loop, 1), B(preempt_disable_enable, 1), B(local_irq_save_restore, 1), B(local_irq_disable_enable, 1),
	B(local_bh_disable_enable, 1), B(spin_lock_unlock, 1), B(spin_lock_irqsave_restore, 1), B(spin_lock_irq, 1),
	B(spin_lock_bh, 1), B(spin_trylock_unlock, 1), B(read_lock_unlock, 1), B(write_lock_unlock, 1), B(seqlock_read, 1),
	B(seqlock_write, 1), B(mutex_lock_unlock, 1), B(rwsem_down_up_read, 1), B(rwsem_down_up_write, 1),
	B(semaphore_down_up, 1), B(atomic_inc, 1), B(this_cpu_inc, 1), B(rcu_read_lock_unlock, 1), B(rcu_deref_section, 1),
	B(srcu_read_lock_unlock, 1), B(list_add_del, 1), B(complete_wait_nonblocking, 1), B(wake_up_empty_waitqueue, 1),
	B(kernel_fpu_begin_end, 1), B(ktime_get, 1), B(cond_resched, 1), B(mod_timer_pending_requeue, 1),
	B(mod_timer_pending_same_bucket, 1), B(add_timer_timer_delete_pair, 1), B(add_timer_1e5, 1), B(timer_delete_1e5, 1),
	B(hrtimer_start_cancel_far, 1), B(hrtimer_start_cancel_near, 1), B(hrtimer_latency_idle, 1),
	B(hrtimer_latency_busy, 1), B(tasklet_raise_to_run, 1), B(irq_work_self_ipi, 1),
	B(workqueue_queue_to_run_same_cpu, 1), B(pingpong_completion_same_cpu, 1), B(pingpong_waitqueue_same_cpu, 1),
	B(pingpong_completion_cross_cpu, 2), B(pingpong_waitqueue_cross_cpu, 2), B(mass_expiry_1jiffy_1e5, 1),
	B(mass_expiry_10jiffies_1e5, 1), B(call_rcu_enqueue_1e5, 1), B(call_rcu_to_barrier_1e5, 1), B(synchronize_rcu, 1),
	B(synchronize_rcu_expedited, 1), B(rcu_barrier_idle, 1), B(synchronize_srcu, 1), B(smp_call_single, 2),
	B(smp_call_function_all, 2), B(timer_late_L0, 1), B(timer_late_L1, 1), B(timer_late_L2, 1),
	B(spinlock_throughput, 1), B(spinlock_irqsave_throughput, 1), B(mutex_throughput, 1), B(rwlock_read_throughput, 1),
	B(seqlock_read_throughput, 1), B(refcount_read_throughput, 1), B(rcu_read_throughput, 1),
};

/* Whether a part of `only` is in the name, or there are none; parts with a `!` before them exclude. */
static bool is_wanted(const char *name)
{
	char parts[256], *rest = parts, *part;
	bool wanted = false, asked = false;

	strscpy(parts, only, sizeof(parts));
	while ((part = strsep(&rest, ","))) {
		if (*part == '!') {
			if (part[1] && strstr(name, part + 1))
				return false;
		} else if (*part) {
			asked = true;
			wanted |= strstr(name, part) != NULL;
		}
	}
	return wanted || !asked;
}

static int measure(void *unused)
{
	unsigned int i;

	pr_info("BENCH_INFO system Linux %s\n", utsname()->release);
	pr_info("BENCH_INFO cpus %u\n", num_online_cpus());
	pr_info("BENCH_INFO hz %d\n", HZ);
	pr_info("BENCH_INFO tsc_khz %u\n", tsc_khz);
	find_overhead();
	for (i = 0; i < ARRAY_SIZE(benchmarks); i++) {
		const struct benchmark *b = &benchmarks[i];

		if (!is_wanted(b->name) || num_online_cpus() < b->cpus)
			continue;
		b->run(b->name);
		msleep(1);
	}
	return 0;
}

static DECLARE_COMPLETION(finished);

static int measure_and_tell(void *unused)
{
	measure(NULL);
	complete(&finished);
	return 0;
}

static int __init quiesce_bench_init(void)
{
	struct task_struct *t;
	int cpu;

	spin_lock_init(&contested.spin.lock);
	mutex_init(&contested.mutex.lock);
	rwlock_init(&contested.rw.lock);
	seqlock_init(&contested.seq.lock);
	refcount_set(&contested.ref.count, 1);
	for_each_online_cpu(cpu) {
		there = here;
		here = cpu;
	}
	t = kthread_create(measure_and_tell, NULL, "bench");
	if (IS_ERR(t))
		return PTR_ERR(t);
	kthread_bind(t, here);
	sched_set_fifo(t);
	wake_up_process(t);
	wait_for_completion(&finished);
	pr_info("BENCH_DONE\n");
	return 0;
}
module_init(quiesce_bench_init);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("What operations of the kernel cost, for comparison with Quiesce");
