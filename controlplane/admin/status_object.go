package admin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

func (s *Status) service(snapshot *mesh.Snapshot, svc *mesh.Service, programmed Condition) {
	for _, ip := range svc.VirtualIPs {
		s.VirtualIPs = append(s.VirtualIPs, ip.String())
	}
	accepted := is(Accepted)
	if why := disagreements(snapshot, svc); len(why) > 0 {
		accepted = not(Accepted, "ProtocolConflict", "%s", some(why, 3))
	}
	e := endpoints(snapshot, svc)
	s.Endpoints = &e
	s.Conditions = []Condition{accepted, programmed, serving(svc, *s.Endpoints)}
}

// endpoints counts those of a service. A pod that slices of both families name is one.
func endpoints(snapshot *mesh.Snapshot, svc *mesh.Service) (e Endpoints) {
	if !svc.Sliced {
		for _, w := range snapshot.Members(svc) {
			e.count(w.Ready)
		}
		return e
	}
	seen := map[string]bool{}
	for _, slice := range snapshot.SlicesOf(svc.Name) {
		for _, one := range slice.Endpoints {
			if one.Workload == "" || !seen[one.Workload] {
				e.count(one.Ready)
			}
			seen[one.Workload] = true
		}
	}
	return e
}

func (e *Endpoints) count(ready bool) {
	e.Total++
	if ready {
		e.Ready++
	}
}

// serving is Ready of a service.
func serving(svc *mesh.Service, e Endpoints) Condition {
	switch {
	case e.Ready > 0:
		c := is(Ready)
		c.Message = fmt.Sprintf("%d of %d endpoints are ready", e.Ready, e.Total)
		return c
	case svc.ExternalName != "":
		c := is(Ready)
		c.Message = "it is another name of " + svc.ExternalName
		return c
	case svc.Sliced && e.Total == 0:
		return not(Ready, "NoEndpoints", "its EndpointSlices have no endpoint; see 'kubectl get endpointslices -n %s -l kubernetes.io/service-name=%s' and its selector", svc.Namespace, svc.Name.Name)
	case svc.Sliced:
		return not(Ready, "NotReady", "none of the %d endpoints is ready; see the pods", e.Total)
	case len(svc.Selector) == 0:
		return not(Ready, "NoSelector", "spec.selector is empty and selects no workload; give it the labels of the workloads")
	case e.Total == 0:
		return not(Ready, "NoEndpoints", "no registered workload of namespace %s has the labels %s; start one, or correct spec.selector", svc.Namespace, labels(svc.Selector))
	}
	return not(Ready, "NotReady", "none of the %d workloads is ready; see 'heddle get workloads -n %s' and their logs", e.Total, svc.Namespace)
}

// disagreements tells of each port of svc that its workloads do not serve as it says,
// since a service before it by name gives the same port another protocol.
func disagreements(snapshot *mesh.Snapshot, svc *mesh.Service) []string {
	var out []string
	for _, w := range snapshot.Members(svc) {
		for _, other := range snapshot.ServicesOf(w) { // by name
			if other.Name == svc.Name {
				break // those behind it follow it
			}
			for _, mine := range svc.Ports {
				for _, theirs := range other.Ports {
					at := snapshot.Target(svc, mine, w)
					if at != 0 && at == snapshot.Target(other, theirs, w) && mine.Protocol != theirs.Protocol {
						out = append(out, fmt.Sprintf("port %d (%s) leads to port %d of the workloads, which service %s says is %s; make the two agree",
							mine.Port, mine.Protocol, at, other.Name, theirs.Protocol))
					}
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *Status) workload(snapshot *mesh.Snapshot, w *mesh.Workload, programmed Condition) {
	accepted := is(Accepted)
	for _, svc := range snapshot.ServicesOf(w) {
		s.Services = append(s.Services, svc.Name.Name)
	}
	if len(s.Services) == 0 {
		accepted.Message = "no service selects it, so nobody can call it"
	}
	ready := is(Ready)
	if !w.Ready {
		ready = not(Ready, "NotReady", "the application is starting or draining, or its health check fails; see its logs")
	}
	s.Conditions = []Condition{accepted, programmed, ready}
}

func (s *Status) policy(snapshot *mesh.Snapshot, p *mesh.AuthorizationPolicy, programmed Condition) {
	resolved := is(ResolvedRefs)
	if missing := missingTargets(snapshot, p); len(missing) > 0 {
		resolved = not(ResolvedRefs, "TargetNotFound", "service %s does not exist; create it, or correct the name in spec.targetRefs", strings.Join(missing, ", "))
	}
	for _, w := range enforcing(snapshot, p) {
		s.EnforcedBy = append(s.EnforcedBy, w.Name.Name)
	}
	s.Conditions = []Condition{is(Accepted), resolved, programmed}
}

func missingTargets(snapshot *mesh.Snapshot, p *mesh.AuthorizationPolicy) []string {
	var out []string
	for _, target := range p.Targets {
		if _, ok := snapshot.Services.Lookup(target); !ok {
			out = append(out, target.String())
		}
	}
	return out
}

// enforcing lists the workloads that enforce a policy, by name.
func enforcing(snapshot *mesh.Snapshot, p *mesh.AuthorizationPolicy) []*mesh.Workload {
	if len(p.Targets) == 0 {
		return snapshot.WorkloadsIn(p.Namespace)
	}
	var out []*mesh.Workload
	for _, target := range p.Targets {
		if svc, ok := snapshot.Services.Lookup(target); ok && svc.Namespace == p.Namespace {
			out = append(out, snapshot.Members(svc)...)
		}
	}
	slices.SortFunc(out, func(a, b *mesh.Workload) int { return a.Name.Compare(b.Name) })
	return slices.Compact(out)
}

// labels writes labels as a selector is written on a command line.
func labels(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}
