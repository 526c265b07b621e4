package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/dns"
	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

// dnsFlags are the flags of dns.
type dnsFlags struct {
	clientFlags
	types         []string
	clusterDomain string
}

func dnsCommand(e *env) *cobra.Command {
	var f dnsFlags
	c := &cobra.Command{
		Use:   "dns NAME",
		Short: "Show what a sidecar's DNS answers for a name or an address",
		Long: `Answers as the DNS server of a sidecar in the namespace does, from the names that the
control plane gives it. Short names are completed as the workload's resolv.conf says.`,
		Example: `  heddle dns api
  heddle dns api.shop.svc.cluster.local -t SRV
  heddle dns 100.96.0.7`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeNames(&f.clientFlags, mesh.KindService),
		RunE: func(c *cobra.Command, given []string) error {
			questions, err := f.questions(given[0])
			if err != nil {
				return err
			}
			return f.run(c, func(ctx context.Context, cl *client) error {
				items, err := f.answer(ctx, cl, questions)
				if err != nil {
					return err
				}
				if f.output != "" {
					return writeList(e.stdout, f.output, items)
				}
				return printAnswers(e, given[0], items)
			})
		},
	}
	f.add(c, "json", "yaml")
	c.Flags().StringSliceVarP(&f.types, "type", "t", nil, "record types, such as SRV (default A and AAAA; PTR for an address)")
	c.Flags().StringVar(&f.clusterDomain, "cluster-domain", defaultClusterDomain, "domain that services' names end with")
	return c
}

// dnsItem is the answer to one question.
type dnsItem struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Status  string   `json:"status"` // NOERROR, NXDOMAIN and so on
	Records []string `json:"records"`
}

// questions are what is asked: the name as it stands, then with each search domain.
func (f *dnsFlags) questions(name string) ([][]mdns.Question, error) {
	types := f.types
	names := []string{mdns.Fqdn(name)}
	if addr, err := netip.ParseAddr(name); err == nil {
		reverse, err := mdns.ReverseAddr(addr.String())
		if err != nil {
			return nil, usagef("%q: %w", name, err)
		}
		if names = []string{reverse}; len(types) == 0 {
			types = []string{"PTR"}
		}
	} else if _, ok := mdns.IsDomainName(name); !ok {
		return nil, usagef("%q is neither a name nor an address", name)
	} else if !strings.HasSuffix(name, ".") {
		names = f.search(name)
	}
	if len(types) == 0 {
		types = []string{"A", "AAAA"}
	}
	var out [][]mdns.Question
	for _, n := range names {
		var same []mdns.Question
		for _, t := range types {
			number, ok := mdns.StringToType[strings.ToUpper(t)]
			if !ok {
				return nil, usagef("--type %q is no record type", t)
			}
			same = append(same, mdns.Question{Name: n, Qtype: number, Qclass: mdns.ClassINET})
		}
		out = append(out, same)
	}
	return out, nil
}

// search is what a resolver makes of a name with fewer than 5 dots, as in Kubernetes.
func (f *dnsFlags) search(name string) []string {
	var out []string
	for _, suffix := range []string{f.namespace + ".svc." + f.clusterDomain, "svc." + f.clusterDomain, f.clusterDomain} {
		out = append(out, mdns.Fqdn(name+"."+suffix))
	}
	if strings.Count(name, ".") >= 5 {
		return append([]string{mdns.Fqdn(name)}, out...)
	}
	return append(out, mdns.Fqdn(name))
}

// answer runs a sidecar's server on loopback and asks it, name by name until one is there.
func (f *dnsFlags) answer(ctx context.Context, cl *client, questions [][]mdns.Question) (items []dnsItem, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	server, err := f.server(ctx, cl)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	go func() { ended <- server.Run(serving, []net.PacketConn{socket}, nil) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	for _, same := range questions {
		items = nil
		for _, q := range same {
			item, err := ask(ctx, socket.LocalAddr().String(), q)
			if err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		if items[0].Status == "NOERROR" {
			break
		}
	}
	return items, nil
}

// server is that of a sidecar, without the resolvers of its machine.
func (f *dnsFlags) server(ctx context.Context, cl *client) (*dns.Server, error) {
	reply, err := cl.mesh.Config(ctx, &apipb.ConfigRequest{Types: []string{translate.HostType}})
	if err != nil {
		return nil, err
	}
	var hosts []*namepb.Host
	for _, r := range reply.GetResources() {
		h := new(namepb.Host)
		if err := protojson.Unmarshal(r.GetJson(), h); err != nil {
			return nil, fmt.Errorf("read the name %s: %w", r.GetName(), err)
		}
		hosts = append(hosts, h)
	}
	zone, err := dns.NewZone(f.clusterDomain, f.namespace, defaultVirtualPrefixes()...)
	if err != nil {
		return nil, err
	}
	server, err := dns.New(dns.Config{Zone: zone})
	if err != nil {
		return nil, err
	}
	t, err := dns.NewTable(zone, hosts)
	if t == nil {
		return nil, err
	}
	server.SetTable(t) // what is malformed is left out, as sidecars do
	return server, nil
}

func ask(ctx context.Context, address string, q mdns.Question) (dnsItem, error) {
	m := new(mdns.Msg)
	m.Id, m.RecursionDesired, m.Question = mdns.Id(), true, []mdns.Question{q}
	m.SetEdns0(mdns.DefaultMsgSize, false)
	item := dnsItem{Name: q.Name, Type: mdns.TypeToString[q.Qtype], Records: []string{}}
	reply, _, err := (&mdns.Client{Timeout: 5 * time.Second}).ExchangeContext(ctx, m, address)
	if err != nil {
		return item, fmt.Errorf("ask for %s %s: %w", q.Name, item.Type, err)
	}
	item.Status = mdns.RcodeToString[reply.Rcode]
	for _, rr := range reply.Answer {
		item.Records = append(item.Records, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	return item, nil
}

// printAnswers fails when the name does not exist in the mesh.
func printAnswers(e *env, name string, items []dnsItem) error {
	var missing string
	for _, i := range items {
		for _, record := range i.Records {
			fmt.Fprintln(e.stdout, record)
		}
		switch {
		case i.Status == "NOERROR" && len(i.Records) == 0:
			fmt.Fprintf(e.stderr, "%s exists and has no %s record\n", i.Name, i.Type)
		case i.Status != "NOERROR":
			missing = i.Status
		}
	}
	if missing != "" {
		return fmt.Errorf("%s is no name of the mesh (%s); a sidecar asks its machine's resolvers for it. Services are listed by 'heddle get services -A'", name, missing)
	}
	return nil
}
