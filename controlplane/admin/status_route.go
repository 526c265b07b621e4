package admin

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// ControllerName is what Gateway API calls the one who writes a status.
const ControllerName = "mesh.heddle.dev/controller"

// route says for each parent whether the route attaches to it, and sums that up.
func (s *Status) route(snapshot *mesh.Snapshot, r *mesh.Route, programmed Condition) {
	resolved := backends(snapshot, r)
	accepted := is(Accepted)
	var messages []string
	for _, p := range r.Parents {
		at := parent(snapshot, r, p)
		s.Parents = append(s.Parents, ParentStatus{
			ParentRef:      ParentRef{Kind: string(mesh.KindService), Namespace: p.Service.Namespace, Name: p.Service.Name, Port: p.Port},
			ControllerName: ControllerName,
			Conditions:     []Condition{at, resolved, programmed},
		})
		if at.Status != True {
			if accepted.Status == True {
				accepted = at
			}
			messages = append(messages, at.Message)
		}
	}
	accepted.Message = strings.Join(messages, "; ")
	s.Conditions = []Condition{accepted, resolved, programmed}
}

// parent is Accepted for one parent. It follows what translate makes of routes.
func parent(snapshot *mesh.Snapshot, r *mesh.Route, p mesh.Parent) Condition {
	svc, ok := snapshot.Services.Lookup(p.Service)
	switch {
	case !ok:
		return not(Accepted, "NoMatchingParent", "service %s does not exist; create it, or correct the name in spec.parentRefs", p.Service)
	case svc.Namespace != r.Namespace:
		return not(Accepted, "NotAllowedByListeners", "service %s is in another namespace; only routes of its own say how it is reached: move the route to namespace %s", p.Service, svc.Namespace)
	case svc.Headless:
		return not(Accepted, "UnsupportedValue", "service %s is headless, so its clients choose an instance and no route applies; leave out clusterIP: None in the service", p.Service)
	}
	if p.Port != 0 {
		port, ok := svc.Port(p.Port)
		switch {
		case !ok:
			return not(Accepted, "NoMatchingParent", "service %s has no port %d; %s: correct the port in spec.parentRefs", p.Service, p.Port, portsOf(svc))
		case !port.Protocol.IsHTTP():
			return not(Accepted, "UnsupportedProtocol", "port %d of service %s is %s; set appProtocol: http in the service if it speaks HTTP", p.Port, p.Service, port.Protocol)
		}
	}
	http, rival := false, ""
	for _, port := range svc.Ports {
		if !port.Protocol.IsHTTP() || p.Port != 0 && p.Port != port.Port {
			continue
		}
		http = true
		if rival = grpcRoute(snapshot, svc, port.Port); rival == "" || r.Kind == mesh.KindGRPCRoute {
			return is(Accepted)
		}
	}
	if !http {
		return not(Accepted, "UnsupportedProtocol", "no port of service %s is HTTP; set appProtocol: http in the service for the one that speaks HTTP", p.Service)
	}
	return not(Accepted, "Conflicted", "%s is attached to service %s, too, and goes before every HTTPRoute; remove one of the two, or give them different ports in spec.parentRefs", rival, p.Service)
}

// grpcRoute finds a GRPCRoute that applies to a port of a service, "" where there is none.
func grpcRoute(snapshot *mesh.Snapshot, svc *mesh.Service, port uint16) string {
	for _, r := range snapshot.RoutesOf(svc.Name) {
		for _, p := range r.Parents {
			if r.Kind == mesh.KindGRPCRoute && r.Namespace == svc.Namespace && p.Service == svc.Name && (p.Port == 0 || p.Port == port) {
				return r.Ref.String()
			}
		}
	}
	return ""
}

// backends is ResolvedRefs. The requests that a broken reference would get are answered
// with status 500.
func backends(snapshot *mesh.Snapshot, r *mesh.Route) Condition {
	out := is(ResolvedRefs)
	var messages []string
	seen := map[string]bool{}
	for _, b := range r.Backends() {
		reason, message := backend(snapshot, b)
		if reason == "" || seen[message] {
			continue
		}
		seen[message] = true
		messages = append(messages, message)
		if out.Status == True {
			out = not(ResolvedRefs, reason, "")
		}
	}
	if len(messages) > 0 {
		out.Message = some(messages, 5) + "; its share of the requests is answered with 500"
	}
	return out
}

// backend gives the reason why a reference leads nowhere, or "".
func backend(snapshot *mesh.Snapshot, b mesh.Backend) (reason, message string) {
	if b.Denied {
		return "RefNotPermitted", fmt.Sprintf("backend %s is in another namespace; use a service of the route's own", b.Service)
	}
	svc, ok := snapshot.Services.Lookup(b.Service)
	if !ok {
		return "BackendNotFound", fmt.Sprintf("backend service %s does not exist; create it, or correct the name in backendRefs", b.Service)
	}
	port, ok := svc.Port(b.Port)
	switch {
	case !ok:
		return "BackendNotFound", fmt.Sprintf("backend service %s has no port %d; %s", b.Service, b.Port, portsOf(svc))
	case !port.Protocol.IsHTTP():
		return "UnsupportedProtocol", fmt.Sprintf("port %d of backend service %s is %s; set appProtocol: http in the service if it speaks HTTP", b.Port, b.Service, port.Protocol)
	}
	return "", ""
}

func portsOf(svc *mesh.Service) string {
	if len(svc.Ports) == 0 {
		return "it has no ports"
	}
	var numbers []string
	for _, p := range svc.Ports {
		numbers = append(numbers, strconv.Itoa(int(p.Port)))
	}
	return "it has " + strings.Join(numbers, ", ")
}
