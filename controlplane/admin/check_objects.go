package admin

import (
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

func (s *Server) checkWorkloads(snapshot *mesh.Snapshot) []*apipb.Finding {
	connected := map[mesh.Name]bool{}
	for _, c := range s.sidecars() {
		connected[c.workload] = true
	}
	var out []*apipb.Finding
	for _, w := range sorted(snapshot.Workloads) {
		if !connected[w.Name] {
			out = append(out, warning("see whether its Envoy runs, in its sidecar's log; the sidecar serves it with the last good configuration meanwhile",
				"the proxy of workload %s is not connected", w.Name))
		}
		if !w.Ready {
			out = append(out, warning("see its log; it gets requests as soon as it is ready", "workload %s is not ready", w.Name))
		}
		if len(w.Ports) > 0 && len(snapshot.ServicesOf(w)) == 0 {
			out = append(out, warning("create a service with selector app="+w.Labels["app"]+", or correct the labels",
				"no service selects workload %s (%s), so nobody can call it", w.Name, labels(w.Labels)))
		}
	}
	return out
}

func (s *Server) checkServices(snapshot *mesh.Snapshot) []*apipb.Finding {
	var out []*apipb.Finding
	for _, svc := range sorted(snapshot.Services) {
		if c := serving(svc, endpoints(snapshot, svc)); c.Status != True {
			fix := "start a workload with these labels, or correct spec.selector"
			if c.Reason == "NotReady" {
				fix = "see the logs of its workloads"
			}
			out = append(out, warning(fix, "service %s has no endpoint: %s", svc.Name, c.Message))
		}
	}
	return out
}

func (s *Server) checkProtocols(snapshot *mesh.Snapshot) []*apipb.Finding {
	var out []*apipb.Finding
	for _, svc := range sorted(snapshot.Services) {
		for _, why := range disagreements(snapshot, svc) {
			out = append(out, problem("set the same appProtocol in both services", "service %s: %s", svc.Name, why))
		}
	}
	return out
}

func (s *Server) checkRoutes(snapshot *mesh.Snapshot) []*apipb.Finding {
	var out []*apipb.Finding
	for _, r := range slices.Concat(sorted(snapshot.HTTPRoutes), sorted(snapshot.GRPCRoutes)) {
		for _, p := range r.Parents {
			if c := parent(snapshot, r, p); c.Status != True {
				out = append(out, problem("correct spec.parentRefs of the route, or the service", "%s has no effect: %s", r.Ref, c.Message))
			}
		}
		if c := backends(snapshot, r); c.Status != True {
			out = append(out, problem("create the service, or correct backendRefs", "%s: %s", r.Ref, c.Message))
		}
	}
	return out
}

func (s *Server) checkPolicies(snapshot *mesh.Snapshot) []*apipb.Finding {
	var out []*apipb.Finding
	for _, p := range sorted(snapshot.Policies) {
		if missing := missingTargets(snapshot, p); len(missing) > 0 {
			out = append(out, problem("correct spec.targetRefs, or create the service", "%s targets what does not exist: service %s", p.Ref, some(missing, 3)))
		} else if len(enforcing(snapshot, p)) == 0 {
			out = append(out, warning("start a workload of its targets, or remove the policy", "%s is enforced by no workload", p.Ref))
		}
	}
	return out
}

func (s *Server) checkIngresses(snapshot *mesh.Snapshot) []*apipb.Finding {
	var out []*apipb.Finding
	for _, g := range sorted(snapshot.Gateways) {
		_, faults := snapshot.EdgeOf(g.Name)
		for _, i := range sorted(snapshot.Ingresses) {
			for _, f := range faults[i.Name] {
				what, fix, _ := strings.Cut(f.Message, "; ")
				out = append(out, problem(fix, "%s: %s: %s", i.Ref, f.Field, what))
			}
		}
	}
	return out
}

// checkAddresses counts the virtual addresses given out, of each range.
func (s *Server) checkAddresses(snapshot *mesh.Snapshot) []*apipb.Finding {
	used := map[netip.Prefix]int{}
	ranges := s.virtual
	if len(ranges) == 0 {
		ranges = s.pipeline.Prefixes()
	}
	for _, svc := range snapshot.Services.All() {
		for _, a := range svc.VirtualIPs {
			for _, p := range ranges {
				if p.Contains(a) {
					used[p]++
				}
			}
		}
	}
	var out []*apipb.Finding
	for _, p := range ranges {
		size := math.Exp2(float64(p.Addr().BitLen() - p.Bits()))
		switch share := float64(used[p]) / size; {
		case share > 0.95:
			out = append(out, problem("remove services, or give the control plane a larger range", "%d addresses of %s are taken: new services will soon get none", used[p], p))
		case share > 0.8:
			out = append(out, warning("remove services, or plan a larger range", "%d addresses of %s are taken, %.0f %%", used[p], p, 100*share))
		}
	}
	return out
}
