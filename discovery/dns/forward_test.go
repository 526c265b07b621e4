package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

// world is a real upstream resolver: a miekg/dns server for example.com.
type world struct {
	at         netip.AddrPort
	udp, tcp   atomic.Int32 // queries it got
	silent     atomic.Bool
	rcode      atomic.Int32
	hold       chan struct{} // if not nil, answers wait for it to close
	oldFashion bool          // answers FORMERR to EDNS
}

func startWorld(t testing.TB, change ...func(*world)) *world {
	t.Helper()
	w := new(world)
	for _, f := range change {
		f(w)
	}
	u, l := listen(t)
	w.at = u.LocalAddr().(*net.UDPAddr).AddrPort()
	var running sync.WaitGroup
	t.Cleanup(running.Wait) // runs last
	for _, srv := range []*dns.Server{{PacketConn: u, Handler: w}, {Listener: l, Handler: w}} {
		ready := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(ready) }
		running.Go(func() { srv.ActivateAndServe() })
		<-ready
		t.Cleanup(func() { srv.Shutdown() })
	}
	return w
}

func (w *world) ServeDNS(rw dns.ResponseWriter, r *dns.Msg) {
	udp := rw.RemoteAddr().Network() == "udp"
	if udp {
		w.udp.Add(1)
	} else {
		w.tcp.Add(1)
	}
	if w.silent.Load() {
		return
	}
	if w.hold != nil {
		<-w.hold
	}
	m := new(dns.Msg).SetReply(r)
	m.RecursionAvailable = true
	if m.Rcode = int(w.rcode.Load()); m.Rcode == 0 {
		w.fill(m, udp)
	}
	if w.oldFashion && r.IsEdns0() != nil {
		m = new(dns.Msg).SetRcodeFormatError(r)
	}
	rw.WriteMsg(m)
}

func (w *world) fill(m *dns.Msg, udp bool) {
	q := m.Question[0]
	rr := func(s string) dns.RR {
		rr, err := dns.NewRR(s)
		if err != nil {
			panic(err)
		}
		return rr
	}
	soa := rr("example.com. 3600 IN SOA ns.example.com. h.example.com. 1 2 3 4 60")
	switch {
	case q.Name == "www.example.com." && q.Qtype == dns.TypeA:
		m.Answer = []dns.RR{rr("www.example.com. 300 IN CNAME web.example.com."), rr("web.example.com. 30 IN A 192.0.2.1")}
	case q.Name == "big.example.com.":
		m.Truncated = udp
		for i := range 200 {
			if !udp {
				m.Answer = append(m.Answer, rr(fmt.Sprintf("big.example.com. 30 IN A 192.0.2.%d", i)))
			}
		}
	case q.Name == "nosoa.example.com.":
		m.Rcode = dns.RcodeNameError
	case strings.HasPrefix(q.Name, "no"):
		m.Rcode, m.Ns = dns.RcodeNameError, []dns.RR{soa}
	default:
		m.Ns = []dns.RR{soa}
	}
}

func upstreams(ws ...*world) Config {
	var c Config
	for _, w := range ws {
		c.Upstreams = append(c.Upstreams, w.at)
	}
	return c
}

func TestForward(t *testing.T) {
	w := startWorld(t)
	hosts := append(shop(), &namepb.Host{Name: "out", Namespace: "default", ExternalName: "www.example.com"},
		&namepb.Host{Name: "lost", Namespace: "default", ExternalName: "no.example.com"})
	s := newServer(t, upstreams(w), hosts...)
	at := serve(t, s)
	for _, c := range []struct {
		network, name string
		typ           uint16
		want          string
	}{
		{"udp", "WWW.example.com.", dns.TypeA, "NOERROR 192.0.2.1, CNAME web.example.com."},
		{"tcp", "www.example.com.", dns.TypeA, "NOERROR 192.0.2.1, CNAME web.example.com."},
		{"udp", "www.example.com.", dns.TypeAAAA, "NOERROR ns: SOA example.com."},
		{"udp", "nope.example.com.", dns.TypeA, "NXDOMAIN ns: SOA example.com."},
		{"udp", "out.", dns.TypeA, "NOERROR aa 192.0.2.1, CNAME web.example.com., CNAME www.example.com."},
		{"udp", "lost.", dns.TypeA, "NXDOMAIN aa CNAME no.example.com. ns: SOA example.com."},
	} {
		m := send(t, c.network, at, query1(c.name, c.typ))
		if got := show(m); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if len(m.Answer) > 0 && m.Answer[0].Header().Name != c.name {
			t.Errorf("%s: owner is %s", c.name, m.Answer[0].Header().Name)
		}
	}
	before := w.udp.Load()
	for _, c := range names {
		if strings.HasSuffix(strings.ToLower(c.name), domain) {
			send(t, "udp", at, query1(c.name, c.typ))
		}
	}
	if now := w.udp.Load(); now != before {
		t.Errorf("%d queries for our own domain went upstream", now-before)
	}
}

func TestForwardTruncatedGoesOnOverTCP(t *testing.T) {
	w := startWorld(t)
	at := serve(t, newServer(t, upstreams(w), shop()...))
	if m := send(t, "tcp", at, query1("big.example.com.", dns.TypeA)); len(m.Answer) != 200 {
		t.Errorf("%d records over TCP, want 200", len(m.Answer))
	}
	if m := send(t, "udp", at, query1("big.example.com.", dns.TypeA)); !m.Truncated {
		t.Errorf("over UDP without TC: %d records", len(m.Answer))
	}
	if w.tcp.Load() != 1 {
		t.Errorf("upstream asked over TCP %d times, want 1", w.tcp.Load())
	}
}

func TestFailover(t *testing.T) {
	silent, refusing, good := startWorld(t), startWorld(t), startWorld(t)
	silent.silent.Store(true)
	refusing.rcode.Store(dns.RcodeRefused)
	at := serve(t, newServer(t, upstreams(silent, refusing, good), shop()...))
	for range 3 { // the silent one is asked once, and then rests
		if got := show(send(t, "udp", at, query1(fmt.Sprintf("host-%d.example.com.", good.udp.Load()), dns.TypeA))); got != "NOERROR ns: SOA example.com." {
			t.Errorf("got %s", got)
		}
	}
	if n := silent.udp.Load(); n != 1 {
		t.Errorf("silent upstream was asked %d times, want 1", n)
	}
}

func TestNobodyAnswers(t *testing.T) {
	w := startWorld(t)
	w.rcode.Store(dns.RcodeServerFailure)
	s := newServer(t, upstreams(w), shop()...)
	at := serve(t, s)
	if got := show(send(t, "udp", at, query1("www.example.com.", dns.TypeA))); got != "SERVFAIL" {
		t.Errorf("failing upstream: %s", got)
	}
	s.SetUpstreams(nil)
	if got := show(send(t, "udp", at, query1("other.example.com.", dns.TypeA))); got != "SERVFAIL" {
		t.Errorf("no upstream: %s", got)
	}
	if n := s.Metrics().ForwardFailures.Load(); n != 1 {
		t.Errorf("ForwardFailures %d, want 1", n)
	}
}

func TestOldUpstreamWithoutEDNS(t *testing.T) {
	w := startWorld(t, func(w *world) { w.oldFashion = true })
	s := newServer(t, upstreams(w), shop()...)
	if got := show(exchange(t, s, ask(t, "www.example.com.", dns.TypeA), true)); !strings.HasPrefix(got, "NOERROR 192.0.2.1") {
		t.Errorf("got %s", got)
	}
}

func TestCache(t *testing.T) {
	w := startWorld(t)
	s := newServer(t, upstreams(w), shop()...)
	now := time.Now()
	s.forward.now = func() time.Time { return now }
	get := func(name string) *dns.Msg { return exchange(t, s, ask(t, name, dns.TypeA), true) }
	step := func(name string, after time.Duration, asked int32, ttl uint32) {
		t.Helper()
		now = now.Add(after)
		before := w.udp.Load()
		m := get(name)
		if got := w.udp.Load() - before; got != asked {
			t.Errorf("%s: upstream asked %d times, want %d", name, got, asked)
		}
		for _, rr := range append(m.Answer, m.Ns...) {
			if rr.Header().Rrtype != dns.TypeCNAME && rr.Header().Ttl != ttl {
				t.Errorf("%s: TTL %d, want %d", name, rr.Header().Ttl, ttl)
			}
		}
	}
	step("www.example.com.", 0, 1, 30)
	step("WWW.example.COM.", 12*time.Second, 0, 18)
	step("www.example.com.", 18*time.Second, 1, 30)
	step("no.example.com.", 0, 1, 3600)
	step("no.example.com.", 59*time.Second, 0, 3541) // SOA minimum is 60 s
	step("no.example.com.", time.Second, 1, 3600)
	step("nosoa.example.com.", 0, 1, 0)
	step("nosoa.example.com.", 0, 1, 0)
	w.rcode.Store(dns.RcodeServerFailure)
	step("broken.example.com.", 0, 1, 0)
	step("broken.example.com.", 0, 0, 0)
	step("broken.example.com.", time.Second, 1, 0)
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache()
	now := time.Now()
	key := func(i int) cacheKey { return cacheKey{name: fmt.Sprint(i)} }
	for i := range 3 * cacheEntries {
		c.put(&cached{key: key(i), msg: new(dns.Msg), stored: now, expires: now.Add(time.Hour)})
		c.get(key(0), now) // used, so kept
	}
	if len(c.entries) != cacheEntries || c.order.Len() != cacheEntries {
		t.Errorf("%d entries, %d in order, want %d", len(c.entries), c.order.Len(), cacheEntries)
	}
	if c.get(key(0), now) == nil || c.get(key(1), now) != nil {
		t.Error("want the entry in use kept and the oldest unused dropped")
	}
}

func TestManyAskOnce(t *testing.T) {
	w := startWorld(t, func(w *world) { w.hold = make(chan struct{}) })
	s := newServer(t, upstreams(w), shop()...)
	const n = 50
	var all sync.WaitGroup
	for range n {
		all.Go(func() { exchange(t, s, ask(t, "www.example.com.", dns.TypeA), true) })
	}
	for s.metrics.CacheMisses.Load() < n || w.udp.Load() == 0 { // until all are past the cache
		runtime.Gosched()
	}
	close(w.hold)
	all.Wait()
	if got := w.udp.Load(); got > 2 { // a straggler may come after the answer
		t.Errorf("upstream was asked %d times for one question", got)
	}
}

func TestNeverForwardsToItself(t *testing.T) {
	u, l := listen(t)
	self := u.LocalAddr().(*net.UDPAddr).AddrPort()
	s := newServer(t, Config{Upstreams: []netip.AddrPort{self, netip.AddrPortFrom(netip.MustParseAddr("::ffff:127.0.0.1"), self.Port())}}, shop()...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, []net.PacketConn{u}, []net.Listener{l}) }()
	if got := show(send(t, "udp", self, query1("www.example.com.", dns.TypeA))); got != "SERVFAIL" {
		t.Errorf("got %s", got)
	}
	if n := s.Metrics().Forwarded.Load(); n != 0 {
		t.Errorf("%d exchanges with itself", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	wild := []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}
	for to, want := range map[string]bool{"127.0.0.53:53": true, "127.0.0.1:5353": false, "192.0.2.53:53": false} {
		if got := leadsBack(netip.MustParseAddrPort(to), wild); got != want {
			t.Errorf("%s leads back to a wildcard socket: %v, want %v", to, got, want)
		}
	}
}

// TestLoopThroughAnother: two servers that forward to each other must not
// multiply a query, and must both answer.
func TestLoopThroughAnother(t *testing.T) {
	a, b := newServer(t, Config{Apart: true}, shop()...), newServer(t, Config{Apart: true}, shop()...)
	atA, atB := serve(t, a), serve(t, b)
	a.SetUpstreams([]netip.AddrPort{atB})
	b.SetUpstreams([]netip.AddrPort{atA})
	if got := show(send(t, "udp", atA, query1("www.example.com.", dns.TypeA))); got != "SERVFAIL" {
		t.Errorf("got %s", got)
	}
	if n := a.Metrics().Forwarded.Load() + b.Metrics().Forwarded.Load(); n > 8 {
		t.Errorf("one query made %d exchanges", n)
	}
}
