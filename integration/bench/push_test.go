package bench

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
)

const (
	inMesh  = 1000 // services
	proxies = 200
	uses    = 10 // services that a proxy asks for, where it does not ask for all
)

// BenchmarkControlPlane is about a mesh of 1,000 services and 200 proxies in a process of
// their own, over TCP with mutual TLS. First each proxy holds all services, as it does
// today, then it asks for ten. Processor time and memory are
// the control plane's.
func BenchmarkControlPlane(b *testing.B) {
	p := newPlane(b, netip.MustParsePrefix("100.96.0.0/16"), netip.MustParsePrefix("10.0.0.0/8"))
	before, _ := ownMemory()
	if _, err := p.pipeline.Submit(services(inMesh)); err != nil {
		b.Fatal(err)
	}
	after, _ := ownMemory()
	b.Run("memory", func(b *testing.B) {
		report(b, map[string]float64{"MiB/1000-services": (after - before) / (1 << 20)})
	})
	for _, c := range []struct {
		name  string
		holds int // services
		used  func(proxy int) []string
	}{
		{"all", inMesh, nil},
		{fmt.Sprint(uses, "-used"), uses, used},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := p.simulate(b, c.used)
			b.Run("cold", func(b *testing.B) { s.connect(b, connectOrder{Services: c.holds}) })
			b.Run("memory", s.memory)
			b.Run("reconnect", func(b *testing.B) { s.connect(b, connectOrder{Resume: true}) })
			s.push(b)
		})
	}
}

// used are the clusters that a proxy asks for if it does not ask for all: twenty proxies
// share each ten services.
func used(proxy int) []string {
	var names []string
	for i := range uses {
		service := proxy/(proxies/uses)*uses + i
		names = append(names, translate.PortName(serviceName(service), 80), translate.DestinationName(virtualIP(service), 80))
	}
	return names
}

// swarm is a process of simulated proxies.
type swarm struct {
	plane *plane
	child *child
	names []string // of proxies
	near  []string // of those that hold service 0
	turn  uint32   // makes every change of a route another one
}

// simulate starts one that has the SVIDs of the first workloads of the services.
func (p *plane) simulate(b *testing.B, used func(proxy int) []string) *swarm {
	b.Helper()
	order := simulation{Address: p.Serve(b), Root: p.ca.Bundle().X509Authorities()[0].Raw}
	s := &swarm{plane: p}
	for i := range proxies {
		o := proxyOrder{Node: workload(i, 0, true).Meta.Name.String()}
		o.Chain, o.Key = p.sign(b, identity(i))
		if used != nil {
			o.Uses = used(i)
		}
		s.names = append(s.names, o.Node)
		if used == nil || slices.Contains(o.Uses, translate.PortName(serviceName(0), 80)) {
			s.near = append(s.near, o.Node)
		}
		order.Proxies = append(order.Proxies, o)
	}
	s.child = start(b, exec.Command(self(b), "proxies"))
	s.child.Order(order)
	return s
}

// connect connects all proxies, and reports what that took until the next change had
// reached all of them.
func (s *swarm) connect(b *testing.B, order connectOrder) {
	bytes, cpu, began := s.plane.xds.Stats().Bytes.Load(), ownCPU(b), time.Now()
	var sent float64
	s.child.Ask(order, &sent)
	s.turn++
	s.plane.Push(b, s.near, route(0, s.turn+1))
	report(b, map[string]float64{
		"ms":                 millis(time.Since(began)),
		"cpu-ms":             millis(ownCPU(b) - cpu),
		"KiB-sent/proxy":     float64(s.plane.xds.Stats().Bytes.Load()-bytes) / proxies / 1024,
		"KiB-received/proxy": sent / proxies / 1024,
	})
}

// memory reports what the connected proxies take, and disconnects them.
func (s *swarm) memory(b *testing.B) {
	heap, stacks := ownMemory()
	s.disconnect(b)
	heapLeft, stacksLeft := ownMemory()
	report(b, map[string]float64{
		"heap-KiB/proxy": (heap - heapLeft) / proxies / 1024, "stack-KiB/proxy": (stacks - stacksLeft) / proxies / 1024,
	})
}

func (s *swarm) disconnect(b *testing.B) {
	b.Helper()
	var sent int
	s.child.Ask(connectOrder{Disconnect: true}, &sent)
	for deadline := time.After(time.Minute); len(s.plane.xds.Status()) > 0; {
		changed := s.plane.xds.Changed()
		if len(s.plane.xds.Status()) == 0 {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			b.Fatal("proxies are connected still")
		}
	}
}

// push measures changes of a service that the near proxies hold.
func (s *swarm) push(b *testing.B) {
	s.plane.measure(b, s.plane.xds, s.near, []change{
		// Not of a workload whose own proxy is simulated: that one's inbound side stays as it is.
		{"push-endpoint", func(i int) mesh.Object { return workload(0, 1, i%2 == 1) }},
		{"push-route", func(i int) mesh.Object { return route(0, uint32(100+i%2)) }},
	})
}

// change makes an object that differs from the one before.
type change struct {
	name   string
	object func(i int) mesh.Object
}

// measure measures changes one after the other, each from its object to the last ACK of
// some proxies of a server.
func (p *plane) measure(b *testing.B, server *xds.Server, proxies []string, changes []change) {
	for _, c := range changes {
		b.Run(c.name, func(b *testing.B) {
			const warm, count = 20, 300
			var times []time.Duration
			for i := range warm {
				p.Push(b, proxies, c.object(i))
			}
			bytes, responses, cpu := server.Stats().Bytes.Load(), server.Stats().Responses.Load(), ownCPU(b)
			for i := range count {
				times = append(times, p.Push(b, proxies, c.object(i)))
			}
			pushes := float64(server.Stats().Responses.Load() - responses)
			slices.Sort(times)
			report(b, map[string]float64{
				"p50-ms": millis(quantile(times, .5)), "p99-ms": millis(quantile(times, .99)),
				"bytes/push":    float64(server.Stats().Bytes.Load()-bytes) / pushes,
				"cpu-us/push":   micros(ownCPU(b)-cpu) / pushes,
				"pushes/change": pushes / count,
			})
		})
	}
}
