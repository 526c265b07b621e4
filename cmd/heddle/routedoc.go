package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// routeSpec is what commands read of a route's spec.
type routeSpec struct {
	ParentRefs []parentRef
	Rules      []routeRule
}

type parentRef struct {
	Namespace, Name string
	Port            uint16
}

// String is SERVICE or SERVICE:PORT.
func (p parentRef) String() string {
	if p.Port == 0 {
		return p.Name
	}
	return fmt.Sprintf("%s:%d", p.Name, p.Port)
}

type routeRule struct {
	Matches     []json.RawMessage
	BackendRefs []backendRef
	Filters     []struct{ Type string }
}

// backendRef is a share of the requests of a rule.
type backendRef struct {
	Namespace string  `json:"namespace,omitempty"`
	Name      string  `json:"name"`
	Port      uint16  `json:"port"`
	Weight    *uint32 `json:"weight,omitempty"`
}

func (b backendRef) weight() uint32 {
	if b.Weight == nil {
		return 1 // Gateway API's default
	}
	return *b.Weight
}

func withWeight(b backendRef, w uint32) backendRef {
	b.Weight = &w
	return b
}

// weights tells a rule's backends as "api-v1=90 api-v2=10".
func weights(backends []backendRef, namespace string) string {
	var out []string
	for _, b := range backends {
		name := b.Name
		if b.Namespace != "" && b.Namespace != namespace {
			name = b.Namespace + "/" + name
		}
		if len(backends) > 1 || b.Weight != nil {
			name = fmt.Sprintf("%s=%d", name, b.weight())
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

const (
	// previousAnnotation holds the specs that a route had before 'heddle routes' changed
	// it, a JSON array with the newest last; null stands for "there was no route".
	previousAnnotation = "mesh.heddle.dev/previous"
	maxPrevious        = 10
	gatewayAPI         = "gateway.networking.k8s.io/v1"
)

// routeDoc is a route as commands write it. Fields of the spec that they do not know stay.
type routeDoc struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   routeMeta      `json:"metadata"`
	Spec       map[string]any `json:"spec"`
}

type routeMeta struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// readRoute makes a routeDoc of what the control plane gave.
func readRoute(o object) (*routeDoc, error) {
	r := &routeDoc{APIVersion: o.APIVersion, Kind: o.Kind, Metadata: routeMeta{o.Metadata.Name, o.Metadata.Namespace, o.Metadata.Labels, o.Metadata.Annotations}}
	if err := json.Unmarshal(o.Spec, &r.Spec); err != nil {
		return nil, fmt.Errorf("read the spec of %s: %w", o.Metadata.Name, err)
	}
	return r, nil
}

// spec reads the part of the spec that commands understand.
func (r *routeDoc) spec() (routeSpec, error) {
	var out routeSpec
	data, err := json.Marshal(r.Spec)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	return out, err
}

// splitRoute gives the route that divides a service's requests: the old one with other
// backends in every rule that has some, or a new one where old is nil. Remember puts
// what was before into the annotation, for undo.
func splitRoute(old *routeDoc, name, namespace string, parent parentRef, backends []backendRef, remember bool) (*routeDoc, error) {
	next := &routeDoc{APIVersion: gatewayAPI, Kind: "HTTPRoute", Metadata: routeMeta{Name: name, Namespace: namespace}}
	var before json.RawMessage = []byte("null")
	if old == nil {
		ref := map[string]any{"group": "", "kind": "Service", "name": parent.Name}
		if parent.Port != 0 {
			ref["port"] = parent.Port
		}
		next.Spec = map[string]any{"parentRefs": []any{ref}, "rules": []any{map[string]any{"backendRefs": backends}}}
	} else {
		data, err := json.Marshal(old.Spec)
		if err != nil {
			return nil, err
		}
		before = data
		next.Metadata = old.Metadata
		next.Metadata.Annotations = map[string]string{}
		for k, v := range old.Metadata.Annotations {
			next.Metadata.Annotations[k] = v
		}
		if err := json.Unmarshal(data, &next.Spec); err != nil { // a copy
			return nil, err
		}
		if !next.setBackends(backends) {
			return nil, fmt.Errorf("HTTPRoute %s has no rule with backends; change it by 'heddle apply'", name)
		}
	}
	if !remember {
		return next, nil
	}
	return next, next.push(before)
}

// setBackends replaces the backends of every rule that has some.
func (r *routeDoc) setBackends(backends []backendRef) bool {
	rules, _ := r.Spec["rules"].([]any)
	found := false
	for _, one := range rules {
		if rule, ok := one.(map[string]any); ok && rule["backendRefs"] != nil {
			rule["backendRefs"], found = backends, true
		}
	}
	return found
}

func (r *routeDoc) previous() ([]json.RawMessage, error) {
	text := r.Metadata.Annotations[previousAnnotation]
	if text == "" {
		return nil, nil
	}
	var out []json.RawMessage
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, fmt.Errorf("annotation %s of HTTPRoute %s is damaged: %w", previousAnnotation, r.Metadata.Name, err)
	}
	return out, nil
}

func (r *routeDoc) setPrevious(specs []json.RawMessage) error {
	specs = specs[max(0, len(specs)-maxPrevious):]
	if r.Metadata.Annotations == nil {
		r.Metadata.Annotations = map[string]string{}
	}
	if len(specs) == 0 {
		delete(r.Metadata.Annotations, previousAnnotation)
		return nil
	}
	data, err := json.Marshal(specs)
	if err != nil {
		return err
	}
	r.Metadata.Annotations[previousAnnotation] = string(data)
	return nil
}

// push remembers a spec. A damaged memory is forgotten.
func (r *routeDoc) push(spec json.RawMessage) error {
	specs, _ := r.previous()
	return r.setPrevious(append(specs, spec))
}

// undo gives the route as it was before the last change; nil when there was none.
func (r *routeDoc) undo() (*routeDoc, error) {
	specs, err := r.previous()
	if err != nil {
		return nil, err
	}
	if len(specs) == 0 {
		return nil, fmt.Errorf("HTTPRoute %s remembers nothing before it", r.Metadata.Name)
	}
	last := specs[len(specs)-1]
	if string(last) == "null" {
		return nil, nil
	}
	next := &routeDoc{APIVersion: r.APIVersion, Kind: r.Kind, Metadata: r.Metadata}
	next.Metadata.Annotations = map[string]string{}
	for k, v := range r.Metadata.Annotations {
		next.Metadata.Annotations[k] = v
	}
	if err := json.Unmarshal(last, &next.Spec); err != nil {
		return nil, fmt.Errorf("annotation %s of HTTPRoute %s is damaged: %w", previousAnnotation, r.Metadata.Name, err)
	}
	return next, next.setPrevious(specs[:len(specs)-1])
}

// shifted gives target a percentage of the requests, and the others the rest in their
// proportions. The weights add up to 100; what rounding leaves goes to the largest
// remainders, the first ones first. With nothing to divide among the others they share
// alike.
func shifted(base []backendRef, target int, percent uint32) []backendRef {
	out := slices.Clone(base)
	rest, total := uint64(100-percent), uint64(0)
	for i, b := range base {
		if i != target {
			total += uint64(b.weight())
		}
	}
	type part struct {
		at        int
		remainder uint64
	}
	var parts []part
	given := uint64(0)
	for i, b := range base {
		if i == target {
			continue
		}
		weight, of := uint64(b.weight()), total
		if total == 0 {
			weight, of = 1, uint64(len(base)-1)
		}
		share := rest * weight / of
		given += share
		parts = append(parts, part{i, rest * weight % of})
		out[i] = withWeight(b, uint32(share))
	}
	slices.SortStableFunc(parts, func(a, b part) int { return int(b.remainder) - int(a.remainder) })
	for i := range parts {
		if given >= rest {
			break
		}
		at := parts[i].at
		out[at] = withWeight(out[at], out[at].weight()+1)
		given++
	}
	if len(parts) == 0 {
		percent = 100
	}
	out[target] = withWeight(base[target], percent)
	return out
}

// shareOf is target's part of the requests in percent, rounded.
func shareOf(base []backendRef, target int) uint32 {
	total := uint64(0)
	for _, b := range base {
		total += uint64(b.weight())
	}
	if total == 0 {
		return 0
	}
	return uint32((uint64(base[target].weight())*100 + total/2) / total)
}
