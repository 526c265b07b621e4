package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/heddle-mesh/heddle/discovery/dns"
	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

// namesOrder has the DNS client ask over so many sockets, with so many queries under way
// on each.
type namesOrder struct {
	Address         string
	Queries         [][]byte // asked in turn
	Sockets, Window int
	Length          time.Duration
}

// namesAnswer is what it came to.
type namesAnswer struct {
	Replies, Lost int
	Seconds       float64
}

// BenchmarkNames asks a server of 10,000 services over UDP, from a process of its own;
// the processor time is the server's.
func BenchmarkNames(b *testing.B) {
	address := serveNames(b, 10_000)
	c := start(b, exec.Command(self(b), "dns"))
	for _, load := range []struct {
		name            string
		sockets, window int
	}{
		{"100-at-once", 1, 100}, // as dnsperf does unless told otherwise
		{"1-at-once", 1, 1},     // a batch of one: nothing is saved by reading many
	} {
		for _, query := range []struct {
			name, suffix string
			typ          uint16
		}{{"packed", ".default.svc.cluster.local.", miekg.TypeA}, {"whole", ".default.svc.cluster.local.", miekg.TypeSRV}} {
			b.Run(load.name+"/"+query.name, func(b *testing.B) {
				order := namesOrder{Address: address, Sockets: load.sockets, Window: load.window, Length: 2 * time.Second}
				for i := range 100 {
					prefix := ""
					if query.typ == miekg.TypeSRV { // beside the road of packed answers
						prefix = "_http._tcp."
					}
					m := new(miekg.Msg).SetQuestion(prefix+serviceName(i*97).Name+query.suffix, query.typ)
					wire, err := m.Pack()
					if err != nil {
						b.Fatal(err)
					}
					order.Queries = append(order.Queries, wire)
				}
				var answer namesAnswer
				before := ownCPU(b)
				c.Ask(order, &answer)
				used := ownCPU(b) - before
				report(b, map[string]float64{
					"queries/s":        float64(answer.Replies) / answer.Seconds,
					"server-us/query":  micros(used) / float64(answer.Replies),
					"lost/1000queries": 1000 * float64(answer.Lost) / float64(answer.Replies),
				})
			})
		}
	}
}

// serveNames serves names of services until the benchmark ends.
func serveNames(b *testing.B, services int) string {
	b.Helper()
	zone, err := dns.NewZone("cluster.local", "default", netip.MustParsePrefix("100.96.0.0/16"))
	if err != nil {
		b.Fatal(err)
	}
	var hosts []*namepb.Host
	for i := range services {
		ip := virtualIP(i + 1).As4()
		hosts = append(hosts, &namepb.Host{
			Name: serviceName(i).Name, Namespace: "default", VirtualIps: [][]byte{ip[:]},
			Ports: []*namepb.Port{{Name: "http", Number: 80}},
		})
	}
	table, err := dns.NewTable(zone, hosts)
	if err != nil {
		b.Fatal(err)
	}
	s, err := dns.New(dns.Config{Zone: zone})
	if err != nil {
		b.Fatal(err)
	}
	s.SetTable(table)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, []net.PacketConn{conn}, nil) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return conn.LocalAddr().String()
}

// askNames is the process of the DNS client.
func askNames([]string) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var order namesOrder
		if err := in.Decode(&order); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var group sync.WaitGroup
		answers, errs := make([]namesAnswer, order.Sockets), make([]error, order.Sockets)
		began := time.Now()
		for i := range order.Sockets {
			group.Go(func() { answers[i], errs[i] = order.ask(began.Add(order.Length)) })
		}
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		sum := namesAnswer{Seconds: time.Since(began).Seconds()}
		for _, a := range answers {
			sum.Replies, sum.Lost = sum.Replies+a.Replies, sum.Lost+a.Lost
		}
		if err := out.Encode(sum); err != nil {
			return err
		}
	}
}

// ask keeps a window of queries under way on one socket.
func (o namesOrder) ask(end time.Time) (a namesAnswer, err error) {
	conn, err := net.Dial("udp", o.Address)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	sent := 0
	send := func() error {
		_, err := conn.Write(o.Queries[sent%len(o.Queries)])
		sent++
		return err
	}
	for range o.Window {
		if err := send(); err != nil {
			return a, err
		}
	}
	reply := make([]byte, 4096)
	for i := 0; ; i++ {
		if i%1000 == 0 { // a system call less for most
			if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				return a, err
			}
		}
		n, err := conn.Read(reply)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout(): // all that is under way is lost
			a.Lost += sent - a.Replies - a.Lost
			i = -1
		case err != nil:
			return a, err
		case n < 12 || reply[3]&0xf != miekg.RcodeSuccess || reply[7] == 0:
			return a, errors.New("a reply without an answer")
		default:
			a.Replies++
		}
		if !time.Now().Before(end) {
			return a, nil
		}
		if err := send(); err != nil {
			return a, err
		}
	}
}
