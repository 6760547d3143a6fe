/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * DPDK's side of tests/bench-pool: nanoseconds a buffer that is allocated and freed. A line of JSON for each operation, named as
 * tests/src/bin/pool/time.rs names ours. Needs two lcores.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include <rte_cycles.h>
#include <rte_debug.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

enum {
	BUFFERS = 4095, /* one less than ours: a ring of DPDK's holds a power of two less one */
	CACHE = 512,
	PASSED = 1 << 19, /* buffers in a measurement */
	MEASUREMENTS = 9, /* of which the shortest counts: the others had company */
	LARGEST = 64,
};

static struct rte_mempool *pool;

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static void one(unsigned size __rte_unused)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(pool);
	if (mbuf == NULL)
		rte_panic("no mbuf is free\n");
	rte_compiler_barrier();
	rte_pktmbuf_free(mbuf);
}

static void bulk(unsigned size)
{
	struct rte_mbuf *mbufs[LARGEST];
	if (rte_pktmbuf_alloc_bulk(pool, mbufs, size) != 0)
		rte_panic("no %u mbufs are free\n", size);
	rte_pktmbuf_free_bulk(mbufs, size);
}

static void raw(unsigned size)
{
	void *objects[LARGEST];
	if (rte_mempool_get_bulk(pool, objects, size) != 0)
		rte_panic("no %u objects are free\n", size);
	rte_compiler_barrier();
	rte_mempool_put_bulk(pool, objects, size);
}

/* Inlined with a constant operation, as an application's loop is. */
static __rte_always_inline void measure(const char *name, void (*operation)(unsigned), unsigned size)
{
	double best = 0;
	for (int i = 0; i < MEASUREMENTS; i++) {
		double start = now();
		for (unsigned left = PASSED / size; left > 0; left--)
			operation(size);
		double took = now() - start;
		if (i == 0 || took < best)
			best = took;
	}
	printf("{\"operation\":\"%s\",\"ns\":%f}\n", name, best / PASSED);
}

/* What the two cores hand to one another. */
static struct {
	struct rte_mbuf *mbufs[LARGEST];
	double spent; /* by the other core in a measurement */
	_Alignas(64) atomic_uint given; /* hand-overs so far */
	_Alignas(64) atomic_uint taken;
} desk;

static int other_core(void *unused __rte_unused)
{
	for (unsigned number = 1; number <= MEASUREMENTS * (PASSED / LARGEST); number++) {
		while (atomic_load_explicit(&desk.given, memory_order_acquire) != number)
			rte_pause();
		double start = now();
		for (int i = 0; i < LARGEST; i++)
			rte_pktmbuf_free(desk.mbufs[i]);
		desk.spent += now() - start;
		atomic_store_explicit(&desk.taken, number, memory_order_release);
	}
	return 0;
}

/* Allocated on one core and freed on the other, in turns, so that neither waits within what is measured. */
static void measure_return(void)
{
	double best = 0;
	unsigned number = 0;
	rte_eal_remote_launch(other_core, NULL, rte_get_next_lcore(-1, 1, 0));
	for (int measurement = 0; measurement < MEASUREMENTS; measurement++) {
		double spent = desk.spent = 0;
		for (unsigned left = PASSED / LARGEST; left > 0; left--) {
			double start = now();
			for (int i = 0; i < LARGEST; i++)
				if ((desk.mbufs[i] = rte_pktmbuf_alloc(pool)) == NULL)
					rte_panic("no mbuf is free\n");
			spent += now() - start;
			atomic_store_explicit(&desk.given, ++number, memory_order_release);
			while (atomic_load_explicit(&desk.taken, memory_order_acquire) != number)
				rte_pause();
		}
		spent += desk.spent;
		if (measurement == 0 || spent < best)
			best = spent;
	}
	rte_eal_mp_wait_lcore();
	printf("{\"operation\":\"returned by another core\",\"ns\":%f}\n", best / PASSED);
}

int main(int argc, char **argv)
{
	if (rte_eal_init(argc, argv) < 0)
		rte_panic("rte_eal_init: %s\n", rte_strerror(rte_errno));
	if (rte_lcore_count() < 2)
		rte_panic("two lcores are needed: -l 0,1\n");
	pool = rte_pktmbuf_pool_create("pool", BUFFERS, CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (pool == NULL)
		rte_panic("rte_pktmbuf_pool_create: %s\n", rte_strerror(rte_errno));
	printf("{\"hz\":%lu}\n", rte_get_tsc_hz());
	measure("one packet", one, 1);
	measure("bulk of 8", bulk, 8);
	measure("bulk of 32", bulk, 32);
	measure("bulk of 64", bulk, 64);
	measure("raw bulk of 32", raw, 32);
	measure_return();
	return 0;
}
