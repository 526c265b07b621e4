package server

import (
	"sync"
	"time"
)

// limiter is a token bucket per peer.
type limiter struct {
	rate, burst float64 // calls a second, calls at once

	mu      sync.Mutex // guards what follows
	buckets map[string]bucket
	swept   time.Time // when dropFull ran last
}

type bucket struct {
	level float64 // calls left
	at    time.Time
}

// maxBuckets bounds the memory that strangers can make us use.
const maxBuckets = 20_000

func newLimiter(rate, burst float64) *limiter {
	return &limiter{rate: rate, burst: burst, buckets: map[string]bucket{}}
}

// allow takes one call from the peer's bucket, or reports that it is empty.
func (l *limiter) allow(peer string) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buckets) >= maxBuckets && now.Sub(l.swept) >= time.Second {
		l.dropFull(now)
		l.swept = now
	}
	b, ok := l.buckets[peer]
	switch {
	case ok:
		b.level = min(l.burst, b.level+now.Sub(b.at).Seconds()*l.rate)
	case len(l.buckets) >= maxBuckets:
		return false // so many strangers at once: an attack
	default:
		b.level = l.burst
	}
	b.at = now
	allowed := b.level >= 1
	if allowed {
		b.level--
	}
	l.buckets[peer] = b
	return allowed
}

// dropFull forgets the peers who have been quiet long enough.
func (l *limiter) dropFull(now time.Time) {
	for peer, b := range l.buckets {
		if b.level+now.Sub(b.at).Seconds()*l.rate >= l.burst {
			delete(l.buckets, peer)
		}
	}
}
