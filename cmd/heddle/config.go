package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// configTypes are the values of --type.
var configTypes = []struct{ name, url string }{
	{"listener", translate.ListenerType}, {"route", translate.RoutesType}, {"cluster", translate.ClusterType},
	{"endpoint", translate.EndpointsType}, {"host", translate.HostType}, {"runtime", translate.RuntimeType},
}

func configCommand(e *env) *cobra.Command {
	var f clientFlags
	var types []string
	c := &cobra.Command{
		Use:   "config WORKLOAD",
		Short: "Show what a workload's proxy holds, and which objects made it",
		Long: `Shows the configuration of a workload's proxy, each resource with the objects that made
it and their generations. What the proxy refuses, and thus holds in an older version, is marked.`,
		Example: `  heddle config api-1
  heddle config api-1 --type cluster --type endpoint
  heddle config api-1 --type route -o yaml`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeNames(&f, mesh.KindWorkload),
		RunE: func(c *cobra.Command, given []string) error {
			urls, err := typeURLs(types)
			if err != nil {
				return err
			}
			return f.run(c, func(ctx context.Context, cl *client) error {
				ctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				reply, err := cl.mesh.Config(ctx, &apipb.ConfigRequest{Workload: &apipb.Ref{Kind: string(mesh.KindWorkload), Namespace: f.namespace, Name: given[0]}, Types: urls})
				if err != nil {
					return err
				}
				proxies, err := cl.mesh.Proxies(ctx, &apipb.ProxiesRequest{})
				if err != nil {
					return err
				}
				items := configItems(reply.GetResources(), nacksOf(proxies, f.namespace, given[0]))
				if f.output != "" {
					return writeList(e.stdout, f.output, items)
				}
				return table(e.stdout, []string{"TYPE", "NAME", "VERSION", "FROM", "STATE"}, configRows(items))
			})
		},
	}
	f.add(c, "json", "yaml")
	c.Flags().StringSliceVar(&types, "type", nil, "listener, route, cluster, endpoint or host; repeatable (default all)")
	must(c.RegisterFlagCompletionFunc("type", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return typeNames(), cobra.ShellCompDirectiveNoFileComp
	}))
	return c
}

func typeNames() []string {
	var out []string
	for _, t := range configTypes {
		out = append(out, t.name)
	}
	return out
}

func typeURLs(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		i := slices.Index(typeNames(), strings.TrimSuffix(strings.ToLower(name), "s"))
		if i < 0 {
			return nil, usagef("--type %q: it is one of %s", name, strings.Join(typeNames(), ", "))
		}
		out = append(out, configTypes[i].url)
	}
	return out, nil
}

// configItem is a resource in JSON.
type configItem struct {
	Type    string          `json:"type"`
	TypeURL string          `json:"typeUrl"`
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Origins []originItem    `json:"origins"`
	Refused string          `json:"refused,omitempty"`
	Config  json.RawMessage `json:"config"`
}

// nacksOf are what the proxy of a workload refuses, by type and name.
func nacksOf(r *apipb.ProxiesReply, namespace, workload string) map[string]string {
	out := map[string]string{}
	for _, p := range r.GetProxies() {
		if p.GetWorkload().GetNamespace() == namespace && p.GetWorkload().GetName() == workload {
			for _, n := range p.GetNacks() {
				out[n.GetType()+" "+n.GetName()] = n.GetError()
			}
		}
	}
	return out
}

func configItems(resources []*apipb.Resource, nacks map[string]string) []configItem {
	var out []configItem
	for _, r := range resources {
		item := configItem{Type: r.GetType(), TypeURL: r.GetType(), Name: r.GetName(), Version: r.GetVersion(),
			Origins: originItems(r.GetOrigins()), Refused: nacks[r.GetType()+" "+r.GetName()], Config: r.GetJson()}
		for _, t := range configTypes {
			if t.url == r.GetType() {
				item.Type = t.name
			}
		}
		out = append(out, item)
	}
	return out
}

func configRows(items []configItem) [][]string {
	var rows [][]string
	for _, i := range items {
		var from []string
		for _, o := range i.Origins {
			from = append(from, fmt.Sprintf("%s@%d", label(&apipb.Ref{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}), o.Generation))
		}
		state := "ok"
		if i.Refused != "" {
			state = "refused: " + i.Refused
		}
		rows = append(rows, []string{i.Type, i.Name, i.Version, strings.Join(from, " "), state})
	}
	return rows
}
