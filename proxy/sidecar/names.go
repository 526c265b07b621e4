package sidecar

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/heddle-mesh/heddle/discovery/dns"
	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/relay"
)

// dnsAddress is the server in the application's resolv.conf.
var dnsAddress = netip.MustParseAddr("127.0.0.1")

// serveNames answers the application's DNS queries. Explicit sidecars leave DNS alone.
func (s *Sidecar) serveNames(ctx context.Context) error {
	if s.ns.Mode() == capture.Explicit {
		return nil
	}
	if s.config.gateway() {
		close(s.named) // nobody waits for them
		return nil
	}
	zone, err := dns.NewZone(s.config.ClusterDomain, s.config.ID.Namespace(), s.config.Prefixes...)
	if err != nil {
		return err
	}
	upstreams, err := dns.Upstreams(s.config.Resolvconf)
	if err != nil {
		s.log.Warn("names outside of the mesh will not resolve", "error", err)
	}
	if s.config.Pod != nil {
		zone = zone.Beside()
	}
	// With a namespace of its own the servers are reached from the machine's, and the sockets
	// are in the workload's.
	server, err := dns.New(dns.Config{Zone: zone, Upstreams: upstreams, Apart: s.network != nil, Resolve: s.fetch, Log: s.log})
	if err != nil {
		return err
	}
	udp, tcp, err := s.listenDNS(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching := make(chan error, 1)
	go func() { watching <- s.watchNames(ctx, zone, server) }()
	err = server.Run(ctx, udp, tcp)
	cancel()
	<-watching
	return err
}

// fetch brings to Envoy what leads to a service whose name the application asks for. The
// answer waits for it, so that the first connection finds everything in place.
func (s *Sidecar) fetch(ctx context.Context, host *namepb.Host) bool {
	return s.relay.Want(ctx, destinations(host)...)
}

// destinations are the clusters of a service's virtual addresses, as controlplane/translate
// names them. Addresses of a headless one may be of pods outside of the mesh, to which none
// lead; connections to the others bring theirs themselves.
func destinations(host *namepb.Host) (clusters []string) {
	for _, ip := range host.GetVirtualIps() {
		addr, _ := netip.AddrFromSlice(ip)
		for _, p := range host.GetPorts() {
			clusters = append(clusters, "dst|"+netip.AddrPortFrom(addr, uint16(p.GetNumber())).String())
		}
	}
	return clusters
}

// listenDNS opens the port that resolv.conf leads to, and where captured queries to any
// other server end.
func (s *Sidecar) listenDNS(ctx context.Context) (udp []net.PacketConn, tcp []net.Listener, err error) {
	hosts, port := []string{"127.0.0.1"}, capture.DefaultDNSPort
	v6 := s.ns.AddrV6().IsValid()
	if s.config.Pod != nil {
		port, v6 = capture.PodDNSPort, s.hasLoopback6(ctx)
	}
	if v6 {
		hosts = append(hosts, "::1")
	}
	for _, host := range hosts {
		address := net.JoinHostPort(host, strconv.Itoa(port))
		u, err := s.ns.ListenPacket(ctx, "udp", address)
		if err != nil {
			return nil, nil, fmt.Errorf("serve DNS: %w", err)
		}
		t, err := s.ns.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, nil, fmt.Errorf("serve DNS: %w", err)
		}
		udp, tcp = append(udp, u), append(tcp, t)
	}
	return udp, tcp, nil
}

// hasLoopback6 reports whether ::1 is there: a pod may have IPv4 alone.
func (s *Sidecar) hasLoopback6(ctx context.Context) bool {
	c, err := s.ns.ListenPacket(ctx, "udp6", "[::1]:0")
	return err == nil && c.Close() == nil
}

// watchNames keeps the server's table equal to what the control plane sends.
func (s *Sidecar) watchNames(ctx context.Context, zone *dns.Zone, server *dns.Server) error {
	// The control plane answers registered workloads. If it is away, what was there
	// before counts.
	if s.register != nil {
		registered, cancel := context.WithTimeout(ctx, patience)
		_ = s.register.await(registered)
		cancel()
	} else if err := s.identity.Ready(ctx); err != nil {
		return err
	}
	var first sync.Once
	return relay.Watch(ctx, relay.WatchConfig{
		Upstream: s.conn, Type: namepb.TypeURL, Node: s.node(),
		Dir: filepath.Join(s.config.StateDir, "names"), Log: s.log,
	}, func(resources map[string]*anypb.Any) {
		var hosts []*namepb.Host
		for name, r := range resources {
			h, err := namepb.Decode(name, r.GetValue())
			if err != nil {
				s.log.Warn("skip a malformed name", "error", err)
				continue
			}
			hosts = append(hosts, h)
		}
		table, err := dns.NewTable(zone, hosts)
		if err != nil {
			s.log.Warn("some names are malformed", "error", err)
		}
		server.SetTable(table) // what is malformed is not in it
		first.Do(func() { close(s.named) })
	})
}
