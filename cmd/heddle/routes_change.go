package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// splitting is what the split, shift and undo of one service work on.
type splitting struct {
	cl        *client
	namespace string
	service   string
	parent    parentRef
	number    uint16            // of the HTTP port that is divided
	services  map[string]object // of the namespace
	old       *routeDoc         // nil: there is none yet
	others    []string          // other routes of the service
	remember  bool              // for undo
}

func splitName(service string) string { return service + "-split" }

// open reads what there is. Port is the service's, 0 where it has only one for HTTP.
func (c *client) openSplit(ctx context.Context, namespace, service string, port uint16) (*splitting, error) {
	s := &splitting{cl: c, namespace: namespace, service: service, services: map[string]object{}, remember: true}
	docs, err := c.get(ctx, &apipb.GetRequest{Kind: string(mesh.KindService), Namespace: namespace})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range docs {
		s.services[d.Metadata.Name] = d.object
		names = append(names, d.Metadata.Name)
	}
	if _, ok := s.services[service]; !ok {
		return nil, fmt.Errorf("there is no service %q in namespace %s; there are: %s", service, namespace, strings.Join(names, ", "))
	}
	if s.parent, s.number, err = s.choosePort(port); err != nil {
		return nil, err
	}
	routes, err := c.get(ctx, &apipb.GetRequest{Kind: string(mesh.KindHTTPRoute), Namespace: namespace})
	if err != nil {
		return nil, err
	}
	for _, d := range routes {
		if d.Metadata.Name == splitName(service) {
			if s.old, err = readRoute(d.object); err != nil {
				return nil, err
			}
		} else if concerns(parentsOnly(d.object), service) {
			s.others = append(s.others, d.Metadata.Name)
		}
	}
	return s, nil
}

// parentsOnly is a route without its rules.
func parentsOnly(o object) object {
	var s routeSpec
	_ = json.Unmarshal(o.Spec, &s)
	o.Spec, _ = json.Marshal(map[string]any{"parentRefs": s.ParentRefs})
	return o
}

// choosePort finds the port to divide. It stands in the route only where the service
// has several.
func (s *splitting) choosePort(port uint16) (parentRef, uint16, error) {
	var spec serviceSpec
	_ = json.Unmarshal(s.services[s.service].Spec, &spec)
	var http, all []string
	var chosen uint16
	for _, p := range spec.Ports {
		all = append(all, strconv.Itoa(int(p.Port)))
		if manifest.PortProtocol(p.AppProtocol, p.Name).IsHTTP() && (port == 0 || port == p.Port) {
			http, chosen = append(http, strconv.Itoa(int(p.Port))), p.Port
		}
	}
	ref := parentRef{Name: s.service}
	switch {
	case len(http) == 1:
		if len(spec.Ports) > 1 {
			ref.Port = chosen
		}
		return ref, chosen, nil
	case len(http) > 1:
		return ref, 0, usagef("service %s has several HTTP ports; choose one with --port: %s", s.service, strings.Join(http, ", "))
	case port != 0:
		return ref, 0, fmt.Errorf("service %s has no HTTP port %d (its ports: %s); set appProtocol: http if it speaks HTTP", s.service, port, strings.Join(all, ", "))
	}
	return ref, 0, fmt.Errorf("no port of service %s is HTTP (its ports: %s); set appProtocol: http if it speaks HTTP", s.service, strings.Join(all, ", "))
}

// backend finds the service that a key of the command line means: SERVICE-KEY, else KEY.
func (s *splitting) backend(key string) (backendRef, error) {
	name := s.service + "-" + key
	if _, ok := s.services[name]; !ok {
		name = key
	}
	service, ok := s.services[name]
	if !ok {
		return backendRef{}, fmt.Errorf("%q means neither service %s-%s nor service %s: neither exists in namespace %s; create one, with the labels of that version as its selector",
			key, s.service, key, key, s.namespace)
	}
	var spec serviceSpec
	_ = json.Unmarshal(service.Spec, &spec)
	for _, p := range spec.Ports {
		if p.Port == s.number {
			return backendRef{Name: name, Port: p.Port}, nil
		}
	}
	if len(spec.Ports) == 1 {
		return backendRef{Name: name, Port: spec.Ports[0].Port}, nil
	}
	return backendRef{}, fmt.Errorf("service %s has no port %d as %s has; give it one", name, s.number, s.service)
}

// shares reads v1=90 v2=10.
func (s *splitting) shares(given []string) ([]backendRef, error) {
	var out []backendRef
	total := uint64(0)
	for _, one := range given {
		key, text, ok := strings.Cut(one, "=")
		weight, err := strconv.ParseUint(text, 10, 32)
		if !ok || err != nil || key == "" || weight > 1_000_000 {
			return nil, usagef("%q: want VERSION=WEIGHT, the weight from 0 to 1000000", one)
		}
		b, err := s.backend(key)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o backendRef) bool { return o.Name == b.Name }) {
			return nil, usagef("%q: service %s stands there twice", one, b.Name)
		}
		out = append(out, withWeight(b, uint32(weight)))
		total += weight
	}
	if total == 0 {
		return nil, usagef("all weights are 0: every request would be answered with 500; give one of them more")
	}
	return out, nil
}

// current are the backends as they are now: of the split, or the service itself.
func (s *splitting) current() ([]backendRef, error) {
	if s.old != nil {
		spec, err := s.old.spec()
		if err != nil {
			return nil, err
		}
		for _, r := range spec.Rules {
			if len(r.BackendRefs) > 0 {
				return r.BackendRefs, nil
			}
		}
	}
	return []backendRef{withWeight(backendRef{Name: s.service, Port: s.number}, 100)}, nil
}

// set applies backends.
func (s *splitting) set(ctx context.Context, w io.Writer, backends []backendRef, dryRun bool) (*apipb.ApplyReply, error) {
	next, err := splitRoute(s.old, splitName(s.service), s.namespace, s.parent, backends, s.remember)
	if err != nil {
		return nil, err
	}
	reply, err := s.cl.applyDoc(ctx, w, next, dryRun)
	if err == nil && !dryRun {
		s.old = next
	}
	return reply, err
}

func (c *client) applyDoc(ctx context.Context, w io.Writer, doc *routeDoc, dryRun bool) (*apipb.ApplyReply, error) {
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return c.apply(ctx, w, []source{{data: data}}, doc.Metadata.Namespace, dryRun)
}

func routesSplitCommand(e *env) *cobra.Command {
	var f applyFlags
	var port uint16
	c := &cobra.Command{
		Use:   "split SERVICE VERSION=WEIGHT...",
		Short: "Divide a service's requests over versions",
		Long: `Makes or changes the HTTPRoute SERVICE-split. A version v1 is the Service SERVICE-v1, or
the Service that is called v1. Matches, filters and timeouts that the route has stay.`,
		Example: `  heddle routes split api v1=90 v2=10 --wait
  heddle routes split api api-v2=1`,
		Args:              args(cobra.MinimumNArgs(2)),
		ValidArgsFunction: completeNames(&f.clientFlags, mesh.KindService),
		RunE: func(c *cobra.Command, given []string) error {
			return f.run(c, func(ctx context.Context, cl *client) error {
				s, err := cl.openSplit(ctx, f.namespace, given[0], port)
				if err != nil {
					return err
				}
				backends, err := s.shares(given[1:])
				if err != nil {
					return err
				}
				s.warn(e.stderr)
				reply, err := s.set(ctx, e.stderr, backends, f.dryRun)
				if err != nil {
					return err
				}
				return f.finish(ctx, e, cl, reply)
			})
		},
	}
	f.add(c, "json", "yaml", "name")
	f.addWait(c)
	c.Flags().Uint16Var(&port, "port", 0, "port of the service, where it has several for HTTP")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "check only; change nothing")
	return c
}

// warn tells of other routes, which may win over the split.
func (s *splitting) warn(w io.Writer) {
	if s.old == nil && len(s.others) > 0 {
		fmt.Fprintf(w, "warning: service %s has other routes (%s); where they match the same requests, the older or more specific one wins\n",
			s.service, strings.Join(s.others, ", "))
	}
}
