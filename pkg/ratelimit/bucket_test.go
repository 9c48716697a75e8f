// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestABucketIsFullAtFirstAndFillsSteadily(t *testing.T) {
	const second = int64(time.Second)
	b := NewBucket(Config{Max: 3, PerFill: 2, Interval: time.Second})
	steps := []struct {
		at   int64
		n    uint32
		want bool
		left uint32
		next time.Duration
	}{
		{0, 1, true, 2, 0},
		{0, 1, true, 1, 0},
		{0, 1, true, 0, 500 * time.Millisecond},
		{0, 1, false, 0, 500 * time.Millisecond},
		{second/2 - 1, 1, false, 0, 1},
		{second / 2, 1, true, 0, 500 * time.Millisecond},
		{second, 2, false, 1, 0},
		{second, 0, true, 1, 0},
		{10 * second, 4, false, 3, 0}, // never more than it holds
		{10 * second, 3, true, 0, 500 * time.Millisecond},
		{9 * second, 1, false, 0, 1500 * time.Millisecond}, // a loop whose clock is behind
	}
	for i, s := range steps {
		if got := b.Take(s.n, s.at); got != s.want {
			t.Errorf("step %d: Take(%d) = %v, want %v", i, s.n, got, s.want)
		}
		if left, next := b.Left(s.at), b.Next(s.at); left != s.left || next != s.next {
			t.Errorf("step %d: %d left, next after %v; want %d, %v", i, left, next, s.left, s.next)
		}
	}
}

// A simple bucket that knows all is the model: over any time no more is given than it
// held and was filled by.
func TestNoMoreIsGivenThanWasFilled(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		c := Config{Max: 1 + rng.Uint32N(1000), PerFill: 1 + rng.Uint32N(100_000), Interval: time.Duration(1 + rng.Int64N(int64(time.Minute)))}
		if c.Check() != nil {
			continue
		}
		b := NewBucket(c)
		now, given := int64(0), 0.0
		for range 2000 {
			now += rng.Int64N(int64(c.Interval)/int64(c.PerFill) + 2)
			if b.Take(1, now) {
				given++
			}
			if most := float64(c.Max) + float64(now)*float64(c.PerFill)/float64(c.Interval); given > most+1e-6 {
				t.Fatalf("%+v: %v tokens at %d, there were %v", c, given, now, most)
			}
		}
	}
}

func TestLoopsTogetherGetNoTokenTwice(t *testing.T) {
	const loops, tokens = 8, 10_000
	b := NewBucket(Config{Max: tokens, PerFill: 1, Interval: time.Hour})
	var given atomic.Int64
	var wg sync.WaitGroup
	for range loops {
		wg.Go(func() {
			for range tokens {
				if b.Take(1, 1) {
					given.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if given.Load() != tokens {
		t.Errorf("%d tokens of %d were given", given.Load(), tokens)
	}
}

func TestSettingsThatMakeNoBucketAreRefused(t *testing.T) {
	for _, c := range []Config{
		{0, 1, time.Second}, {1, 0, time.Second}, {1, 1, 0}, {1 << 31, 1, time.Second * 10},
	} {
		if c.Check() == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	for _, c := range []Config{
		{1, 1, MaxSpan}, {1 << 31, 1 << 31, time.Millisecond}, {1 << 31, 1 << 31, MaxSpan}, {1, 1, 1},
	} {
		if err := c.Check(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		if b := NewBucket(c); b.cost <= 0 || b.span <= 0 || !b.Take(1, 0) || b.Left(1<<56) != c.Max {
			t.Errorf("%+v: %+v", c, b)
		}
	}
}

func TestATableKeepsWhatWasUsedLast(t *testing.T) {
	c := Config{Max: 1, PerFill: 1, Interval: time.Hour}
	tb := NewTable(c, 3)
	take := func(key string, now int64) bool { return tb.Bucket([]byte(key), now).Take(1, now) }
	for i, key := range []string{"a", "b", "c"} {
		if !take(key, int64(i)) || take(key, int64(i)) {
			t.Errorf("%s: the bucket holds another number than 1", key)
		}
	}
	take("a", 10)
	if !take("d", 11) {
		t.Error("d found its bucket used")
	}
	if take("a", 12) || take("c", 12) {
		t.Error("a or c lost its bucket to d")
	}
	if !take("b", 13) {
		t.Error("b was used longest ago, and kept its place")
	}
	if tb.Keys() != 3 {
		t.Errorf("%d keys", tb.Keys())
	}
}

func TestATableIsBounded(t *testing.T) {
	for _, limit := range []int{1, 20, 64, 65, 1000} {
		tb := NewTable(Config{1, 1, time.Hour}, limit)
		for i := range 10 * limit {
			tb.Bucket(fmt.Append(nil, "key", i), int64(i))
		}
		if n := tb.Keys(); n > limit+ways || n < limit/2 {
			t.Errorf("%d keys where %d are allowed", n, limit)
		}
	}
}

// A client chooses the keys: it must not choose how much memory they take.
func TestALongKeyTakesNoMoreMemoryThanAShortOne(t *testing.T) {
	const keys = 64
	key := make([]byte, 60<<10)
	tb := NewTable(Config{1, 1, time.Hour}, keys)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range keys {
		key[0] = byte(i)
		if !tb.Bucket(key, 1).Take(1, 1) || tb.Bucket(key, 1).Take(1, 1) {
			t.Fatalf("key %d has another bucket than one of its own", i)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > keys*uint64(len(key))/10 {
		t.Errorf("%d keys took %d bytes", keys, got)
	}
}

func TestLoopsShareAKeysBucketFromTheFirstOn(t *testing.T) {
	for range 50 {
		tb := NewTable(Config{5, 1, time.Hour}, 20)
		var given atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for k := range 10 {
					if tb.Bucket(fmt.Append(nil, k), 1).Take(1, 1) {
						given.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if given.Load() != 50 {
			t.Fatalf("%d tokens of 10 buckets of 5", given.Load())
		}
	}
}

func TestTakingAllocatesNothing(t *testing.T) {
	tb := NewTable(Config{100, 1, time.Hour}, 20)
	key := []byte("a key of some length")
	if n := testing.AllocsPerRun(100, func() { tb.Bucket(key, 1).Take(1, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTake(b *testing.B) {
	k := NewBucket(Config{1, 1_000_000, time.Second})
	b.RunParallel(func(pb *testing.PB) {
		now := int64(0)
		for pb.Next() {
			now += 100
			k.Take(1, now)
		}
	})
}

func BenchmarkBucketByKey(b *testing.B) {
	t := NewTable(Config{1, 1_000_000, time.Second}, 20)
	for i := range 20 {
		t.Bucket(fmt.Append(nil, "key", i), 0)
	}
	key := []byte("key10")
	for i := range b.N {
		t.Bucket(key, int64(i)).Take(1, int64(i))
	}
}
