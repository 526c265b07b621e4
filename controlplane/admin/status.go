package admin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// Types of conditions. The first three and their reasons are Gateway API's.
const (
	Accepted     = "Accepted"     // the object has a place in the mesh
	ResolvedRefs = "ResolvedRefs" // what it refers to exists
	Programmed   = "Programmed"   // every proxy that it concerns holds it
	Ready        = "Ready"        // of services and workloads: requests are served
)

// Values of Condition.Status.
const (
	True    = "True"
	False   = "False"
	Unknown = "Unknown"
)

// Condition is one statement about an object, as in Kubernetes, without the time of its
// last change: it is worked out when somebody asks.
type Condition struct {
	Type               string `json:"type"`
	Status             string `json:"status"`
	ObservedGeneration int64  `json:"observedGeneration,omitempty"`
	Reason             string `json:"reason"`
	Message            string `json:"message,omitempty"`
}

// Status is how an object fares.
type Status struct {
	ObservedGeneration int64       `json:"observedGeneration,omitempty"`
	Conditions         []Condition `json:"conditions"`
	// Parents has the conditions of a route for each parent apart, as Gateway API has them.
	Parents []ParentStatus `json:"parents,omitempty"`
	Proxies Proxies        `json:"proxies"`
	// VirtualIPs and Endpoints are a service's.
	VirtualIPs []string   `json:"virtualIPs,omitempty"`
	Endpoints  *Endpoints `json:"endpoints,omitempty"`
	// Services are those that select a workload.
	Services []string `json:"services,omitempty"`
	// EnforcedBy are the workloads that enforce a policy.
	EnforcedBy []string `json:"enforcedBy,omitempty"`
}

// ParentStatus is the status of a route at one of its parents.
type ParentStatus struct {
	ParentRef      ParentRef   `json:"parentRef"`
	ControllerName string      `json:"controllerName"`
	Conditions     []Condition `json:"conditions"`
}

// ParentRef names a service that a route attaches to.
type ParentRef struct {
	Group     string `json:"group"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Port      uint16 `json:"port,omitempty"`
}

// Proxies is how far an object has come. Refused and Behind name a few.
type Proxies struct {
	Total   int       `json:"total"`
	Live    int       `json:"live"`
	Refused []Refusal `json:"refused,omitempty"`
	Behind  []string  `json:"behind,omitempty"`
}

// Refusal is why a proxy does not take a resource that the object is in. It goes on with
// the last version that it took.
type Refusal struct {
	Proxy    string `json:"proxy"`
	Resource string `json:"resource"`
	Error    string `json:"error"`
}

// Endpoints counts the workloads of a service.
type Endpoints struct {
	Ready int `json:"ready"`
	Total int `json:"total"`
}

// maxNamed is how many proxies a status names.
const maxNamed = 10

// Status gives the status of an object as encoding/json writes it, a *Status; nil when
// the mesh does not have the object.
func (s *Server) Status(ref mesh.Ref) any {
	if status := s.status(ref); status != nil {
		return status
	}
	return nil
}

func (s *Server) status(ref mesh.Ref) *Status {
	snapshot := s.pipeline.Snapshot()
	object := snapshot.Get(ref)
	if object == nil {
		return nil
	}
	trace := s.pipeline.Trace(ref)
	reach := s.reach(trace.Keys, trace.Revision, func(r refusal) bool { return slices.Contains(r.accused(), ref) })
	out := &Status{ObservedGeneration: object.Header().Generation, Proxies: reach.proxies()}
	programmed := reach.condition(len(trace.Keys) > 0)
	switch o := object.(type) {
	case *mesh.Route:
		out.route(snapshot, o, programmed)
	case *mesh.Service:
		out.service(snapshot, o, programmed)
	case *mesh.Workload:
		out.workload(snapshot, o, programmed)
	case *mesh.AuthorizationPolicy:
		out.policy(snapshot, o, programmed)
	default:
		out.Conditions = []Condition{is(Accepted), programmed}
	}
	out.observe()
	return out
}

// Warnings are what is doubtful about objects that were just changed though they are
// valid, such as a route to a service that does not exist (yet).
func (s *Server) Warnings(changes []mesh.Change) map[mesh.Ref][]string {
	out := map[mesh.Ref][]string{}
	for _, c := range changes {
		if c.Object == nil || c.Ref.Kind == mesh.KindWorkload {
			continue
		}
		if status := s.status(c.Ref); status != nil {
			if doubts := status.doubts(); len(doubts) > 0 {
				out[c.Ref] = doubts
			}
		}
	}
	return out
}

// Doubts are the warnings of a route or a policy that is not in the mesh yet.
func (s *Server) Doubts(object mesh.Object) []string {
	out := new(Status)
	switch o := object.(type) {
	case *mesh.Route:
		out.route(s.pipeline.Snapshot(), o, is(Programmed))
	case *mesh.AuthorizationPolicy:
		out.policy(s.pipeline.Snapshot(), o, is(Programmed))
	}
	return out.doubts()
}

func (s *Status) doubts() (messages []string) {
	for _, condition := range s.Conditions {
		if condition.Status == False && (condition.Type == Accepted || condition.Type == ResolvedRefs) {
			messages = append(messages, condition.Message)
		}
	}
	return messages
}

// observe says of which generation every condition is.
func (s *Status) observe() {
	for i := range s.Conditions {
		s.Conditions[i].ObservedGeneration = s.ObservedGeneration
	}
	for _, p := range s.Parents {
		for i := range p.Conditions {
			p.Conditions[i].ObservedGeneration = s.ObservedGeneration
		}
	}
}

// is is a condition that holds; its reason is its name, as Gateway API has it.
func is(kind string) Condition { return Condition{Type: kind, Status: True, Reason: kind} }

func not(kind, reason, format string, args ...any) Condition {
	return Condition{Type: kind, Status: False, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func (r reach) proxies() Proxies {
	out := Proxies{Total: r.total, Live: r.live, Behind: r.behind[:min(len(r.behind), maxNamed)]}
	for _, one := range r.refused[:min(len(r.refused), maxNamed)] {
		out.Refused = append(out.Refused, Refusal{Proxy: one.sidecar, Resource: one.Key.String(), Error: one.Error})
	}
	return out
}

// condition is Programmed. Made says that resources were made from the object at all.
func (r reach) condition(made bool) Condition {
	live := Proxies{Live: r.live, Total: r.total}.live()
	switch {
	case !made:
		return not(Programmed, "Pending", "no proxy is told of it: nothing is made from it as things are")
	case len(r.refused) > 0:
		first := r.refused[0]
		message := fmt.Sprintf("%s; refused by %s", live, first.sidecar)
		if more := len(r.refusers()) - 1; more > 0 {
			message += fmt.Sprintf(" and %d more", more)
		}
		message += fmt.Sprintf(" because %s (in %s%s)", first.Error, first.Key, alsoFrom(first))
		return not(Programmed, "Invalid", "%s", message)
	case r.total == 0:
		return Condition{Type: Programmed, Status: Unknown, Reason: "NoProxies", Message: "no proxy is connected that it concerns"}
	case len(r.behind) > 0:
		return not(Programmed, "Pending", "%s; waiting for %s", live, some(r.behind, 3))
	}
	c := is(Programmed)
	c.Message = live
	return c
}

func (r reach) refusers() []string {
	var out []string
	for _, one := range r.refused {
		out = append(out, one.sidecar)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// alsoFrom tells what else is in the refused resource, since it may be at fault too.
func alsoFrom(r refusal) string {
	accused := r.accused()
	if len(accused) < 2 {
		return ""
	}
	var names []string
	for _, ref := range accused {
		names = append(names, ref.String())
	}
	return ", made from " + some(names, 5)
}

// some lists the first few of names.
func some(names []string, few int) string {
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}
