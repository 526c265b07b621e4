package dns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

const (
	// maxQueries bounds the queries over UDP that wait for something at once.
	maxQueries = 512
	// holdTimeout bounds how long the Resolve hook may hold a query: clients
	// ask again after 5 s, some after 1.
	holdTimeout = 800 * time.Millisecond
)

// Config is what a server needs. Only Zone is required.
type Config struct {
	Zone *Zone
	// Upstreams are asked for everything outside the mesh, in this order.
	// Those that are an address the server listens on are left out.
	Upstreams []netip.AddrPort
	// Apart says that the sockets given to Run live in another network
	// namespace than Dial's: equal addresses are then different places.
	Apart bool
	// Dial reaches upstreams; a plain net.Dialer when nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Resolve, if set, is called before a service's name is first answered, and
	// may take up to 0.8 s to make the service reachable. After true it is not
	// called again until the service changes; the answer goes out either way.
	Resolve func(ctx context.Context, host *namepb.Host) bool
	Log     *slog.Logger
}

// Server answers queries on the sockets that Run is given.
type Server struct {
	config  Config
	log     *slog.Logger
	chain   []handler
	metrics Metrics
	forward forwarder
	table   atomic.Pointer[Table]
	live    sync.Map // *entry -> true, services that Resolve said true for
	turn    atomic.Uint32
	slots   chan struct{} // one is held by each waiting query over UDP
	conns   chan struct{} // one is held by each TCP connection
	tasks   sync.WaitGroup

	// upstreamMu guards what the list of usable upstreams is made from.
	upstreamMu sync.Mutex
	wanted     []netip.AddrPort
	listening  []netip.AddrPort
}

// New makes a server. Until SetTable it answers names of the mesh with
// SERVFAIL, so that clients retry and nobody caches a wrong NXDOMAIN.
func New(c Config) (*Server, error) {
	if c.Zone == nil {
		return nil, errors.New("DNS server: no zone")
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		config: c, log: c.Log,
		slots: make(chan struct{}, maxQueries), conns: make(chan struct{}, maxConns),
	}
	s.forward.dial, s.forward.metrics = c.Dial, &s.metrics
	s.forward.cache, s.forward.now = newCache(), time.Now
	s.chain = s.handlers()
	s.SetUpstreams(c.Upstreams)
	return s, nil
}

// SetTable makes t what names are answered from, at once for all queries.
func (s *Server) SetTable(t *Table) {
	s.table.Store(t)
	s.live.Range(func(k, _ any) bool {
		if e := k.(*entry); t.entries[e.key] != e {
			s.live.Delete(k)
		}
		return true
	})
}

// SetUpstreams replaces the upstream resolvers, as when resolv.conf changed.
func (s *Server) SetUpstreams(list []netip.AddrPort) {
	s.upstreamMu.Lock()
	defer s.upstreamMu.Unlock()
	s.wanted = list
	s.usable()
}

// usable leaves out upstreams that lead back here. The caller holds upstreamMu.
func (s *Server) usable() {
	ups := []*upstream{}
	for _, addr := range s.wanted {
		if !s.config.Apart && leadsBack(addr, s.listening) {
			s.log.Warn("DNS upstream is this server itself, not used", "upstream", addr)
			continue
		}
		ups = append(ups, &upstream{addr: addr})
	}
	s.forward.upstreams.Store(&ups)
}

// Metrics are live counters.
func (s *Server) Metrics() *Metrics { return &s.metrics }

// Run answers queries that arrive at the given sockets, until ctx is done (then
// it returns nil) or one of them breaks. It closes them, and returns when
// every query is done with. Sockets should be bound to definite addresses: a
// reply from a wildcard one may leave from another address than was asked.
func (s *Server) Run(ctx context.Context, udp []net.PacketConn, tcp []net.Listener) error {
	s.upstreamMu.Lock()
	for _, c := range udp {
		s.listening = append(s.listening, addrOf(c.LocalAddr()))
	}
	for _, l := range tcp {
		s.listening = append(s.listening, addrOf(l.Addr()))
	}
	s.usable()
	s.upstreamMu.Unlock()

	g, ctx := errgroup.WithContext(ctx)
	for _, c := range udp {
		g.Go(func() error { return s.serveUDP(ctx, c) })
	}
	for _, l := range tcp {
		g.Go(func() error { return s.serveTCP(ctx, l) })
	}
	g.Go(func() error {
		<-ctx.Done()
		for _, c := range udp {
			c.Close()
		}
		for _, l := range tcp {
			l.Close()
		}
		return nil
	})
	err := g.Wait()
	s.tasks.Wait()
	return err
}

// mustHold reports whether the Resolve hook wants to see this match first.
func (s *Server) mustHold(m match) bool {
	if s.config.Resolve == nil || m.entry == nil || m.node == nil {
		return false
	}
	_, live := s.live.Load(m.entry)
	return !live
}

// rotation is a new starting point among n records.
func (s *Server) rotation(n int) int { return int(s.turn.Add(1) % uint32(n)) }
