package dns

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	cacheEntries = 4096
	cacheBytes   = 4096 // a larger message is not kept: bounds the cache to 16 MiB

	maxPositive = time.Hour
	maxNegative = 5 * time.Minute
	// failureTTL is how long a failure is remembered, so that a storm of
	// retries does not go upstream (RFC 9520, section 3.2: at least 1 s).
	failureTTL = time.Second
)

// cacheKey is all that an upstream's answer may depend on.
type cacheKey struct {
	name   string // canonical
	typ    uint16
	do, cd bool
}

// cached is an upstream's answer; msg never changes.
type cached struct {
	key             cacheKey
	msg             *dns.Msg
	stored, expires time.Time
}

// cache keeps the answers used last.
type cache struct {
	mu      sync.Mutex // guards both below
	entries map[cacheKey]*list.Element
	order   *list.List // of *cached, last used first
}

func newCache() *cache {
	return &cache{entries: make(map[cacheKey]*list.Element), order: list.New()}
}

func (c *cache) get(key cacheKey, now time.Time) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.entries[key]
	if at == nil {
		return nil
	}
	e := at.Value.(*cached)
	if !now.Before(e.expires) {
		c.drop(at)
		return nil
	}
	c.order.MoveToFront(at)
	return e
}

func (c *cache) put(e *cached) {
	if !e.expires.After(e.stored) || e.msg.Len() > cacheBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.entries[e.key]; at != nil {
		c.drop(at)
	}
	for c.order.Len() >= cacheEntries {
		c.drop(c.order.Back())
	}
	c.entries[e.key] = c.order.PushFront(e)
}

func (c *cache) drop(at *list.Element) {
	delete(c.entries, at.Value.(*cached).key)
	c.order.Remove(at)
}

// lifetime is how long an upstream's answer about typ may be kept; 0 for not.
func lifetime(m *dns.Msg, typ uint16) time.Duration {
	if m.Truncated {
		return 0
	}
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	case dns.RcodeServerFailure:
		return failureTTL
	default:
		return 0
	}
	ttl, positive := uint32(maxPositive/time.Second), false
	for _, rr := range m.Answer {
		ttl = min(ttl, rr.Header().Ttl)
		positive = positive || rr.Header().Rrtype == typ
	}
	if positive && m.Rcode == dns.RcodeSuccess {
		return time.Duration(ttl) * time.Second
	}
	// RFC 2308, section 5: by the SOA record, and without one not at all.
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			ttl = min(ttl, soa.Hdr.Ttl, soa.Minttl)
			return min(time.Duration(ttl)*time.Second, maxNegative)
		}
	}
	return 0
}

// aged returns copies of records with their TTLs less by age, owned as the
// client spelled the question where they are about it.
func aged(rrs []dns.RR, age time.Duration, q *query) []dns.RR {
	out := make([]dns.RR, 0, len(rrs))
	spent := uint32(age / time.Second)
	for _, rr := range rrs {
		if rr.Header().Rrtype == dns.TypeOPT { // hop by hop
			continue
		}
		rr = dns.Copy(rr)
		h := rr.Header()
		h.Ttl -= min(h.Ttl, spent)
		if dns.CanonicalName(h.Name) == q.name {
			h.Name = q.msg.Question[0].Name
		}
		out = append(out, rr)
	}
	return out
}
