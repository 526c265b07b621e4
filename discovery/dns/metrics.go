package dns

import (
	"sync/atomic"

	"github.com/miekg/dns"
)

// Metrics counts what the server did since it was made. The agent exports them.
type Metrics struct {
	// Replies by result; they add up to the queries that got a reply.
	Answered, NoData, NameErrors, ServerFailures, Refused, OtherErrors atomic.Uint64

	Packed          atomic.Uint64 // replies that took the packed road
	Truncated       atomic.Uint64 // replies with the TC bit
	Malformed       atomic.Uint64 // messages that deserved no reply
	Overloaded      atomic.Uint64 // queries and connections turned away, too many at once
	Held            atomic.Uint64 // queries that waited for the Resolve hook
	Forwarded       atomic.Uint64 // exchanges with upstreams, retries too
	ForwardFailures atomic.Uint64 // queries that no upstream answered
	CacheHits       atomic.Uint64
	CacheMisses     atomic.Uint64
}

// count notes a reply; none says that it has no answer records.
func (m *Metrics) count(rcode int, none bool) {
	switch {
	case rcode == dns.RcodeSuccess && none:
		m.NoData.Add(1)
	case rcode == dns.RcodeSuccess:
		m.Answered.Add(1)
	case rcode == dns.RcodeNameError:
		m.NameErrors.Add(1)
	case rcode == dns.RcodeServerFailure:
		m.ServerFailures.Add(1)
	case rcode == dns.RcodeRefused:
		m.Refused.Add(1)
	default:
		m.OtherErrors.Add(1)
	}
}
