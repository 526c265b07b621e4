package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

func describeCommand(e *env) *cobra.Command {
	var f clientFlags
	c := &cobra.Command{
		Use:   "describe KIND NAME",
		Short: "Show how an object fares, and what has to do with it",
		Long:  "Shows an object's conditions, which proxies hold or refuse it, its spec, and for a service its workloads, routes and policies.",
		Example: `  heddle describe service api
  heddle describe httproute api-split`,
		Args:              args(cobra.ExactArgs(2)),
		ValidArgsFunction: completeKindThenNames(&f),
		RunE: func(c *cobra.Command, given []string) error {
			kind, err := parseKind(given[0])
			if err != nil {
				return err
			}
			return f.run(c, func(ctx context.Context, cl *client) error {
				docs, err := cl.get(ctx, &apipb.GetRequest{Kind: string(kind), Namespace: f.namespace, Name: given[1]})
				if err != nil {
					return err
				}
				for _, d := range docs {
					if err := describe(e.stdout, d, time.Now()); err != nil {
						return err
					}
					if kind == mesh.KindService {
						if err := describeRelated(ctx, e.stdout, cl, d); err != nil {
							return err
						}
					}
				}
				return nil
			})
		},
	}
	f.add(c)
	return c
}

func describe(w io.Writer, d document, now time.Time) error {
	rows := [][]string{{"Kind:", d.Kind}}
	if d.Metadata.Namespace != "" {
		rows = append(rows, []string{"Namespace:", d.Metadata.Namespace})
	}
	rows = append(rows, []string{"Generation:", fmt.Sprint(d.Metadata.Generation)}, []string{"Age:", age(d.Metadata.Created, now)})
	for _, more := range []struct {
		name   string
		values []string
	}{{"Virtual IPs:", d.Status.VirtualIPs}, {"Services:", d.Status.Services}, {"Enforced by:", d.Status.EnforcedBy}} {
		if len(more.values) > 0 {
			rows = append(rows, []string{more.name, strings.Join(more.values, ", ")})
		}
	}
	if p := d.Status.Endpoints; p != nil {
		rows = append(rows, []string{"Endpoints:", fmt.Sprintf("%d of %d ready", p.Ready, p.Total)})
	}
	rows = append(rows, []string{"Proxies:", fmt.Sprintf("live on %d of %d", d.Status.Proxies.Live, d.Status.Proxies.Total)})
	if err := table(w, []string{"Name:", d.Metadata.Name}, rows); err != nil {
		return err
	}
	for _, r := range d.Status.Proxies.Refused {
		fmt.Fprintf(w, "  refused by %s, %s: %s\n", r.Proxy, r.Resource, r.Error)
	}
	if len(d.Status.Proxies.Behind) > 0 {
		fmt.Fprintf(w, "  waiting for %s\n", strings.Join(d.Status.Proxies.Behind, ", "))
	}
	fmt.Fprintln(w, "\nConditions:")
	var conditions [][]string
	for _, c := range d.Status.Conditions {
		conditions = append(conditions, []string{"  " + c.Type, c.Status, c.Reason, c.Message})
	}
	if err := table(w, []string{"  TYPE", "STATUS", "REASON", "MESSAGE"}, conditions); err != nil {
		return err
	}
	spec, err := manifest.YAML(d.Spec)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nSpec:\n  %s\n", strings.ReplaceAll(strings.TrimSpace(string(spec)), "\n", "\n  "))
	return nil
}

// describeRelated lists the workloads, routes and policies of a service.
func describeRelated(ctx context.Context, w io.Writer, cl *client, service document) error {
	docs, err := cl.get(ctx, &apipb.GetRequest{Namespace: service.Metadata.Namespace})
	if err != nil {
		return err
	}
	related := slices.DeleteFunc(docs, func(d document) bool { return !concerns(d.object, service.Metadata.Name) })
	if len(related) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nRelated:")
	var rows [][]string
	for _, d := range related {
		status := verdict(d.object)
		for _, c := range d.faults() {
			status = c.Reason + ": " + c.Message
			break
		}
		rows = append(rows, []string{"  " + label(d.ref), live(d.Status), status})
	}
	return table(w, []string{"  OBJECT", "LIVE", "STATUS"}, rows)
}

// concerns reports whether an object of the same namespace has to do with a service.
func concerns(o object, service string) bool {
	switch mesh.Kind(o.Kind) {
	case mesh.KindWorkload:
		return slices.Contains(o.Status.Services, service)
	case mesh.KindHTTPRoute, mesh.KindGRPCRoute:
		var s routeSpec
		_ = json.Unmarshal(o.Spec, &s)
		return slices.ContainsFunc(s.ParentRefs, func(p parentRef) bool { return p.Name == service }) ||
			slices.ContainsFunc(s.Rules, func(r routeRule) bool {
				return slices.ContainsFunc(r.BackendRefs, func(b backendRef) bool { return b.Name == service })
			})
	case mesh.KindAuthorizationPolicy:
		var s struct{ TargetRefs []struct{ Name string } }
		_ = json.Unmarshal(o.Spec, &s)
		return len(s.TargetRefs) == 0 || slices.ContainsFunc(s.TargetRefs, func(t struct{ Name string }) bool { return t.Name == service })
	}
	return false
}
