package admin

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// patience is how long a proxy may be behind before Check speaks of it: a change is on
// all proxies within a second, as a rule.
const patience = 5 * time.Second

// check is one self check. It gives a finding for each thing that is wrong.
type check struct {
	name string
	fine string // what is said when nothing is wrong
	run  func(*Server, *mesh.Snapshot) []*apipb.Finding
}

// checks are all of them, in the order in which one would look.
var checks = []check{
	{"clock", "the clock agrees with the certificates and the objects", (*Server).checkClock},
	{"certificates", "the certificate authority is valid", (*Server).checkCertificates},
	{"proxies", "every proxy is up to date", (*Server).checkProxies},
	{"refusals", "no proxy refuses anything", (*Server).checkRefusals},
	{"workloads", "every workload is ready, connected and in a service", (*Server).checkWorkloads},
	{"services", "every service has endpoints", (*Server).checkServices},
	{"protocols", "services agree on the protocol of their workloads' ports", (*Server).checkProtocols},
	{"routes", "every route has its services", (*Server).checkRoutes},
	{"policies", "every policy is enforced by a workload", (*Server).checkPolicies},
	{"ingresses", "every Ingress is served", (*Server).checkIngresses},
	{"addresses", "there are virtual addresses left", (*Server).checkAddresses},
}

// Check runs the self checks. Each gives at least one finding: OK when all is well.
func (s *Server) Check(context.Context, *apipb.CheckRequest) (*apipb.CheckReply, error) {
	snapshot := s.pipeline.Snapshot()
	reply := &apipb.CheckReply{}
	for _, c := range checks {
		found := c.run(s, snapshot)
		if len(found) == 0 {
			found = []*apipb.Finding{{Level: apipb.Finding_OK, Message: c.fine}}
		}
		for _, f := range found {
			f.Name = c.name
		}
		reply.Findings = append(reply.Findings, found...)
	}
	return reply, nil
}

func finding(level apipb.Finding_Level, fix, format string, args ...any) *apipb.Finding {
	return &apipb.Finding{Level: level, Message: fmt.Sprintf(format, args...), Fix: fix}
}

func warning(fix, format string, args ...any) *apipb.Finding {
	return finding(apipb.Finding_WARNING, fix, format, args...)
}

func problem(fix, format string, args ...any) *apipb.Finding {
	return finding(apipb.Finding_ERROR, fix, format, args...)
}

// checkClock finds what cannot have been made later than now.
func (s *Server) checkClock(snapshot *mesh.Snapshot) []*apipb.Finding {
	const fix = "set this machine's clock by NTP; certificates are refused by peers whose clocks differ"
	now := s.now()
	if s.ca != nil {
		if created := s.ca.Expiry().RootCreated; created.After(now) {
			return []*apipb.Finding{problem(fix, "the root certificate is valid from %s, and the clock says %s",
				created.Format(time.RFC3339), now.Format(time.RFC3339))}
		}
	}
	for _, svc := range sorted(snapshot.Services) {
		if created := time.Unix(0, svc.Created); created.After(now.Add(time.Minute)) {
			return []*apipb.Finding{warning(fix, "%s was created on %s, and the clock says %s",
				svc.Ref, created.Format(time.RFC3339), now.Format(time.RFC3339))}
		}
	}
	return nil
}

func (s *Server) checkCertificates(*mesh.Snapshot) []*apipb.Finding {
	if s.ca == nil {
		return nil
	}
	var out []*apipb.Finding
	expiry, now := s.ca.Expiry(), s.now()
	if text := expiry.Warning(now); text != "" {
		level := apipb.Finding_WARNING
		if !expiry.Root.After(now) {
			level = apipb.Finding_ERROR
		}
		fix := "heddle ca rotate"
		if expiry.Issued {
			fix = "see to it where it is issued"
		}
		out = append(out, finding(level, fix, "%s", text))
	}
	if expiry.Issued && expiry.Intermediate.Sub(now) < 2*s.ca.SVIDTTL() {
		return append(out, problem("see why its issuer does not renew it, as by kubectl describe certificate",
			"the issued certificate that signs expires on %s", expiry.Intermediate.Format(time.RFC3339)))
	}
	if left := expiry.Intermediate.Sub(now); left < s.ca.SVIDTTL() {
		out = append(out, problem("restart the control plane: it makes a new one; if that does not help, look for errors of the CA in its log",
			"the intermediate certificate expires on %s, before an SVID made now would", expiry.Intermediate.Format(time.RFC3339)))
	}
	return out
}

func (s *Server) checkProxies(*mesh.Snapshot) []*apipb.Finding {
	revision := s.pipeline.Cache().Revision()
	var out []*apipb.Finding
	for _, c := range s.sidecars() {
		settled := c.settled()
		since := c.streams[0].LastAck
		if since.Before(c.streams[0].Connected) {
			since = c.streams[0].Connected
		}
		if late := s.now().Sub(since); settled < revision && late > patience {
			out = append(out, warning(fmt.Sprintf("look at its log and its machine's load; 'heddle config %s -n %s' shows what it should have", c.workload.Name, c.workload.Namespace),
				"proxy %s is behind: it has revision %d of %d, and has said nothing for %s", c.id, settled, revision, late.Round(time.Second)))
		}
	}
	return out
}

func (s *Server) checkRefusals(*mesh.Snapshot) []*apipb.Finding {
	var out []*apipb.Finding
	for _, c := range s.sidecars() {
		for _, r := range s.refusals(c) {
			var names []string
			for _, ref := range r.accused() {
				names = append(names, ref.String())
			}
			from := some(names, 5)
			out = append(out, problem(fmt.Sprintf("change %s; until then the proxy goes on with the last version it took", from),
				"proxy %s refuses %s, made from %s: %s", c.id, r.Key, from, r.Error))
		}
	}
	return out
}

// sorted lists a table by name.
func sorted[V mesh.Object](t mesh.Table[V]) []V {
	out := make([]V, 0, t.Len())
	for _, v := range t.All() {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b V) int { return a.Header().Ref.Compare(b.Header().Ref) })
	return out
}
