//go:build k8s

package k8s

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// span is what Jaeger's query API says of one.
type span struct {
	SpanID, ProcessID, OperationName string
	References                       []struct{ SpanID string }
	Tags                             []struct {
		Key   string
		Value any
	}
}

func (s span) tag(key string) string {
	for _, t := range s.Tags {
		if t.Key == key {
			return fmt.Sprint(t.Value)
		}
	}
	return ""
}

// trace is what Jaeger's query API says of a trace.
type trace struct {
	Spans     []span
	Processes map[string]struct{ ServiceName string }
}

// awaitTrace waits for a trace that goes from the load generator through the sidecars of
// all tiers to the API's own database span, as one tree.
func awaitTrace(t *testing.T, outside string) {
	eventually(t, "a whole trace in Jaeger", func() (string, bool) {
		a := get(t, outside, "stranger", "http://jaeger.tracing:16686/api/traces?limit=20&service=loadgen")
		var list struct{ Data []trace }
		if err := json.Unmarshal([]byte(a.Body), &list); err != nil {
			return fmt.Sprintf("Jaeger says %.200v", a), false
		}
		problem := "there are no traces"
		for _, trace := range list.Data {
			if problem = trace.problem(); problem == "" {
				return "", true
			}
		}
		return problem, false
	})
}

// problem says what a trace lacks.
func (tr trace) problem() string {
	var have []string
	ids, roots, identities, routed := map[string]bool{}, 0, map[string]bool{}, false
	for _, s := range tr.Spans {
		name := tr.Processes[s.ProcessID].ServiceName + " " + s.tag("span.kind")
		if s.tag("db.system.name") != "" {
			name += " " + s.OperationName
		}
		have, ids[s.SpanID] = append(have, name), true
	}
	for _, s := range tr.Spans {
		if !slices.ContainsFunc(s.References, func(r struct{ SpanID string }) bool { return ids[r.SpanID] }) {
			roots++
		}
		identities[s.tag("heddle.source.id")], identities[s.tag("heddle.destination.id")] = true, true
		routed = routed || strings.HasPrefix(s.tag("heddle.route"), "HTTPRoute/shop/api-split/")
	}
	for _, want := range []string{"loadgen client", "frontend server", "frontend client", "api server", "api client SELECT documents"} {
		if !slices.Contains(have, want) {
			return fmt.Sprintf("a trace lacks %q; it has %q", want, have)
		}
	}
	for _, account := range []string{"loadgen", "frontend", "api"} {
		if !identities["spiffe://mesh.local/ns/shop/sa/"+account] {
			return fmt.Sprintf("no span names the identity of %s: %v", account, identities)
		}
	}
	switch {
	case !routed:
		return "no span names the route that was taken"
	case roots != 1:
		return fmt.Sprintf("%d spans have no parent, want one tree: %q", roots, have)
	}
	return ""
}
