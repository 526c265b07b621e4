package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

func proxiesCommand(e *env) *cobra.Command {
	var f clientFlags
	c := &cobra.Command{
		Use:   "proxies",
		Short: "List the connected proxies: which are up to date, behind, or refuse something",
		Long:  "Lists the proxies that are connected to the control plane. REVISION is the newest that a proxy has answered completely; ACK is how long ago it answered last.",
		Example: `  heddle proxies
  heddle proxies -o wide
  heddle proxies -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return f.run(c, func(ctx context.Context, cl *client) error {
				call, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				reply, err := cl.mesh.Proxies(call, &apipb.ProxiesRequest{})
				if err != nil {
					return err
				}
				if f.output == "json" || f.output == "yaml" {
					return writeList(e.stdout, f.output, proxyItems(reply.GetProxies()))
				}
				header, rows := proxyTable(reply.GetProxies(), f.output == "wide", time.Now())
				return table(e.stdout, header, rows)
			})
		},
	}
	f.add(c, "json", "yaml", "wide")
	return c
}

// proxyItem is a proxy in JSON.
type proxyItem struct {
	ID        string            `json:"id"`
	Namespace string            `json:"namespace"`
	Workload  string            `json:"workload"`
	Synced    bool              `json:"synced"`
	Revision  uint64            `json:"ackedRevision"`
	Connected time.Time         `json:"connectedSince"`
	LastAck   time.Time         `json:"lastAck,omitzero"`
	Resources map[string]uint32 `json:"resources"`
	Refused   []refusedItem     `json:"refused,omitempty"`
}

type refusedItem struct {
	Type    string       `json:"type"`
	Name    string       `json:"name"`
	Version string       `json:"version"`
	Error   string       `json:"error"`
	Time    time.Time    `json:"time"`
	Origins []originItem `json:"origins"`
}

// originItem is an object that a resource was made from.
type originItem struct {
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	Generation int64  `json:"generation,omitempty"`
}

func originItems(origins []*apipb.Origin) []originItem {
	out := []originItem{}
	for _, o := range origins {
		out = append(out, originItem{o.GetRef().GetKind(), o.GetRef().GetNamespace(), o.GetRef().GetName(), o.GetGeneration()})
	}
	return out
}

func proxyItems(proxies []*apipb.Proxy) []proxyItem {
	var out []proxyItem
	for _, p := range proxies {
		item := proxyItem{ID: p.GetId(), Namespace: p.GetWorkload().GetNamespace(), Workload: p.GetWorkload().GetName(), Synced: p.GetSynced(),
			Revision: p.GetAckedRevision(), Connected: p.GetConnectedSince().AsTime(), Resources: p.GetResources()}
		if p.GetLastAck() != nil {
			item.LastAck = p.GetLastAck().AsTime()
		}
		for _, n := range p.GetNacks() {
			item.Refused = append(item.Refused, refusedItem{n.GetType(), n.GetName(), n.GetVersion(), n.GetError(), n.GetTime().AsTime(), originItems(n.GetOrigins())})
		}
		out = append(out, item)
	}
	return out
}

func proxyTable(proxies []*apipb.Proxy, wide bool, now time.Time) (header []string, rows [][]string) {
	header = []string{"PROXY", "STATE", "REVISION", "ACK", "CONNECTED"}
	types := []struct{ header, typ string }{{"LISTENERS", translate.ListenerType}, {"ROUTES", translate.RoutesType},
		{"CLUSTERS", translate.ClusterType}, {"ENDPOINTS", translate.EndpointsType}, {"NAMES", translate.HostType}}
	if wide {
		for _, t := range types {
			header = append(header, t.header)
		}
	}
	for _, p := range proxies {
		ack := "-"
		if p.GetLastAck() != nil {
			ack = age(p.GetLastAck().AsTime(), now)
		}
		row := []string{p.GetId(), proxyState(p), fmt.Sprint(p.GetAckedRevision()), ack, age(p.GetConnectedSince().AsTime(), now)}
		if wide {
			for _, t := range types {
				row = append(row, fmt.Sprint(p.GetResources()[t.typ]))
			}
		}
		rows = append(rows, row)
	}
	return header, rows
}

func proxyState(p *apipb.Proxy) string {
	switch n := len(p.GetNacks()); {
	case n > 0:
		return fmt.Sprintf("refuses %d", n)
	case p.GetSynced():
		return "synced"
	}
	return "behind"
}
