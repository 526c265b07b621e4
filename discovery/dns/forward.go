package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	// forwardTimeout is for one query over all tries: less than the 5 s after
	// which glibc gives up on us.
	forwardTimeout = 4500 * time.Millisecond
	// upstreamRest is how long an upstream that did not answer is asked last.
	upstreamRest = 10 * time.Second
)

// tryTimeouts are for one exchange, in the first and the second round.
var tryTimeouts = []time.Duration{time.Second, 2 * time.Second}

var errNoUpstream = errors.New("no upstream resolver to ask")

// forwarder asks the machine's resolvers.
type forwarder struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	metrics *Metrics
	cache   *cache
	flight  singleflight.Group
	now     func() time.Time

	upstreams atomic.Pointer[[]*upstream]
}

type upstream struct {
	addr netip.AddrPort
	rest atomic.Int64 // Unix nanoseconds until which it is asked last
}

// forwarded answers with what an upstream says, or said a moment ago.
func (s *Server) forwarded(ctx context.Context, q *query) *dns.Msg {
	if !q.msg.RecursionDesired {
		return q.reply(dns.RcodeRefused)
	}
	e := s.forward.ask(ctx, q)
	m := q.reply(e.msg.Rcode)
	age := max(0, s.forward.now().Sub(e.stored))
	m.Answer, m.Ns, m.Extra = aged(e.msg.Answer, age, q), aged(e.msg.Ns, age, q), aged(e.msg.Extra, age, q)
	// RFC 6840, section 5.8: AD only for those who know it.
	m.AuthenticatedData = e.msg.AuthenticatedData && (q.msg.AuthenticatedData || q.opt != nil && q.opt.Do())
	return m
}

// ask answers from the cache, or asks upstream, once for all who want the same.
// Should an upstream lead back to us, that also ends the loop: the question
// that came round waits for itself, until its time is over.
func (f *forwarder) ask(ctx context.Context, q *query) *cached {
	key := cacheKey{q.name, q.typ, q.opt != nil && q.opt.Do(), q.msg.CheckingDisabled}
	if e := f.cache.get(key, f.now()); e != nil {
		f.metrics.CacheHits.Add(1)
		return e
	}
	f.metrics.CacheMisses.Add(1)
	v, _, _ := f.flight.Do(fmt.Sprint(key), func() (any, error) {
		ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
		defer cancel()
		msg, err := f.exchange(ctx, key)
		if err != nil {
			f.metrics.ForwardFailures.Add(1)
			msg = new(dns.Msg)
			msg.Rcode = dns.RcodeServerFailure
		}
		msg.Compress = true // so that its length is what it will be
		now := f.now()
		e := &cached{key: key, msg: msg, stored: now, expires: now.Add(lifetime(msg, key.typ))}
		f.cache.put(e)
		return e, nil
	})
	return v.(*cached)
}

// exchange tries all upstreams, those that answered of late first, twice. A
// refusal or failure is passed on only if nobody has better.
func (f *forwarder) exchange(ctx context.Context, key cacheKey) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(key.name, key.typ)
	m.CheckingDisabled, m.AuthenticatedData = key.cd, true
	m.SetEdns0(maxUDP, key.do)
	err := errNoUpstream
	for _, timeout := range tryTimeouts {
		var poor *dns.Msg
		for _, up := range f.order() {
			var r *dns.Msg
			if r, err = f.try(ctx, up, m, timeout); err != nil {
				up.rest.Store(f.now().Add(upstreamRest).UnixNano())
				continue
			}
			up.rest.Store(0)
			if r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNameError {
				return r, nil
			}
			poor = r
		}
		if poor != nil {
			return poor, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("forward %s: %w", key.name, err)
}

func (f *forwarder) order() []*upstream {
	var well, resting []*upstream
	now := f.now().UnixNano()
	for _, up := range *f.upstreams.Load() {
		if up.rest.Load() > now {
			resting = append(resting, up)
		} else {
			well = append(well, up)
		}
	}
	return append(well, resting...)
}

// try asks one upstream over UDP, and over TCP if the answer does not fit.
// A server from before EDNS (RFC 6891, section 7) is asked again without.
func (f *forwarder) try(ctx context.Context, up *upstream, m *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	r, err := f.once(ctx, "udp", up, m, timeout)
	if err == nil && r.Rcode == dns.RcodeFormatError {
		m = m.Copy()
		m.Extra = nil
		r, err = f.once(ctx, "udp", up, m, timeout)
	}
	if err == nil && r.Truncated {
		r, err = f.once(ctx, "tcp", up, m, timeout)
	}
	return r, err
}

// once makes one exchange, from a new socket and so a port nobody can guess
// (RFC 5452, section 9.2).
func (f *forwarder) once(ctx context.Context, network string, up *upstream, m *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	f.metrics.Forwarded.Add(1)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := f.dial(ctx, network, up.addr.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	m = m.Copy()
	m.Id = dns.Id()
	client := &dns.Client{Net: network, Timeout: timeout}
	r, _, err := client.ExchangeWithConnContext(ctx, m, &dns.Conn{Conn: c})
	if err != nil {
		return nil, err
	}
	if !r.Response || r.Rcode != dns.RcodeFormatError && !sameQuestion(r, m) {
		return nil, fmt.Errorf("upstream %s answered another question", up.addr)
	}
	return r, nil
}

func sameQuestion(a, b *dns.Msg) bool {
	return len(a.Question) == 1 && len(b.Question) == 1 &&
		dns.CanonicalName(a.Question[0].Name) == dns.CanonicalName(b.Question[0].Name) &&
		a.Question[0].Qtype == b.Question[0].Qtype && a.Question[0].Qclass == b.Question[0].Qclass
}
