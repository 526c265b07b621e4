package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/controlplane/admin"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

func routesCommand(e *env) *cobra.Command {
	var f clientFlags
	var all bool
	c := &cobra.Command{
		Use:   "routes",
		Short: "List routes by service, and divide a service's requests over versions",
		Long:  "Lists what happens to the requests of each service, a line per rule.",
		Example: `  heddle routes
  heddle routes split api v1=90 v2=10
  heddle routes shift api v2 --over 10m
  heddle routes undo api`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return f.run(c, func(ctx context.Context, cl *client) error {
				items, err := cl.listRoutes(ctx, &apipb.GetRequest{Namespace: f.namespace, AllNamespaces: all})
				if err != nil {
					return err
				}
				if f.output != "" {
					return writeList(e.stdout, f.output, items)
				}
				return table(e.stdout, []string{"SERVICE", "ROUTE", "MATCH", "BACKENDS", "LIVE", "STATUS"}, routeRows(items))
			})
		},
	}
	f.add(c, "json", "yaml")
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	c.AddCommand(routesSplitCommand(e), routesShiftCommand(e), routesUndoCommand(e))
	return c
}

// routeItem is one rule of a route at one of its services.
type routeItem struct {
	Namespace string            `json:"namespace"`
	Service   string            `json:"service"`
	Port      uint16            `json:"port,omitempty"`
	Route     string            `json:"route"` // KIND/NAME
	Rule      int               `json:"rule"`
	Match     string            `json:"match"`
	Backends  []backendRef      `json:"backends"`
	Filters   []string          `json:"filters,omitempty"`
	Live      int               `json:"live"`
	Proxies   int               `json:"proxies"`
	Status    string            `json:"status"`
	Problems  []admin.Condition `json:"problems,omitempty"`
}

func (c *client) listRoutes(ctx context.Context, r *apipb.GetRequest) ([]routeItem, error) {
	var out []routeItem
	for _, kind := range []mesh.Kind{mesh.KindGRPCRoute, mesh.KindHTTPRoute} {
		docs, err := c.get(ctx, &apipb.GetRequest{Kind: string(kind), Namespace: r.GetNamespace(), AllNamespaces: r.GetAllNamespaces()})
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			items, err := routeItems(d)
			if err != nil {
				return nil, err
			}
			out = append(out, items...)
		}
	}
	slices.SortStableFunc(out, func(a, b routeItem) int {
		return strings.Compare(a.Namespace+"/"+a.Service, b.Namespace+"/"+b.Service)
	})
	return out, nil
}

func routeItems(d document) ([]routeItem, error) {
	var s routeSpec
	if err := json.Unmarshal(d.Spec, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w", label(d.ref), err)
	}
	if len(s.Rules) == 0 {
		s.Rules = []routeRule{{}} // everything, to the service itself
	}
	var out []routeItem
	for _, p := range s.ParentRefs {
		namespace := p.Namespace
		if namespace == "" {
			namespace = d.Metadata.Namespace
		}
		for i, rule := range s.Rules {
			item := routeItem{Namespace: namespace, Service: p.Name, Port: p.Port, Route: strings.ToLower(d.Kind) + "/" + d.Metadata.Name,
				Rule: i, Match: matchText(rule.Matches), Backends: rule.BackendRefs, Status: verdict(d.object), Problems: d.faults(),
				Live: d.Status.Proxies.Live, Proxies: d.Status.Proxies.Total}
			for _, f := range rule.Filters {
				item.Filters = append(item.Filters, f.Type)
			}
			out = append(out, item)
		}
	}
	return out, nil
}

func routeRows(items []routeItem) [][]string {
	var rows [][]string
	for _, i := range items {
		service := i.Service
		if i.Namespace != "default" {
			service = i.Namespace + "/" + service
		}
		if i.Port != 0 {
			service = fmt.Sprintf("%s:%d", service, i.Port)
		}
		backends := weights(i.Backends, i.Namespace)
		if backends == "" {
			if backends = "(the service itself)"; len(i.Filters) > 0 {
				backends = strings.Join(i.Filters, ",")
			}
		}
		rows = append(rows, []string{service, i.Route, i.Match, backends, fmt.Sprintf("%d/%d", i.Live, i.Proxies), i.Status})
	}
	return rows
}

// matchText tells matches in a line; several are alternatives.
func matchText(matches []json.RawMessage) string {
	var out []string
	for _, raw := range matches {
		var m struct {
			Path                 struct{ Type, Value string }
			Method               json.RawMessage
			Headers, QueryParams []struct{ Type, Name, Value string }
		}
		if json.Unmarshal(raw, &m) != nil {
			continue
		}
		var parts []string
		var method string
		var grpc struct{ Service, Method string }
		if json.Unmarshal(m.Method, &method) == nil && method != "" {
			parts = append(parts, method)
		} else if json.Unmarshal(m.Method, &grpc) == nil && grpc.Service+grpc.Method != "" {
			parts = append(parts, grpc.Service+"/"+grpc.Method)
		}
		if m.Path.Value != "" {
			parts = append(parts, map[string]string{"Exact": "=", "RegularExpression": "~"}[m.Path.Type]+m.Path.Value)
		}
		for _, h := range m.Headers {
			parts = append(parts, h.Name+": "+h.Value)
		}
		for _, q := range m.QueryParams {
			parts = append(parts, "?"+q.Name+"="+q.Value)
		}
		out = append(out, strings.Join(parts, " "))
	}
	if text := strings.Join(out, " or "); text != "" {
		return text
	}
	return "all"
}
