package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heddle-mesh/heddle/controlplane/admin"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// columns are what 'heddle get' shows of one kind beside its name, LIVE and AGE.
type columns struct {
	header, wide []string
	row          func(object) (row, wide []string)
}

var columnsOf = map[mesh.Kind]columns{
	mesh.KindService:             {[]string{"PORTS", "READY"}, []string{"ADDRESSES", "SELECTOR"}, serviceColumns},
	mesh.KindWorkload:            {[]string{"SERVICES", "READY", "ZONE"}, []string{"ADDRESSES", "CAPTURE", "IDENTITY"}, workloadColumns},
	mesh.KindHTTPRoute:           {[]string{"PARENTS", "STATUS"}, []string{"BACKENDS"}, routeColumns},
	mesh.KindGRPCRoute:           {[]string{"PARENTS", "STATUS"}, []string{"BACKENDS"}, routeColumns},
	mesh.KindAuthorizationPolicy: {[]string{"ACTION", "TARGETS", "STATUS"}, []string{"ENFORCED-BY"}, policyColumns},
	mesh.KindMeshConfig:          {},
}

// tableOf makes the table of objects of one kind.
func tableOf(kind mesh.Kind, docs []document, wide, namespaces bool, now time.Time) (header []string, rows [][]string) {
	c := columnsOf[kind]
	header = []string{strings.ToUpper(string(kind))}
	if namespaces {
		header = append([]string{"NAMESPACE"}, header...)
	}
	header = append(append(header, c.header...), "LIVE", "AGE")
	if wide {
		header = append(header, c.wide...)
	}
	for _, d := range docs {
		row := []string{d.Metadata.Name}
		if namespaces {
			row = append([]string{orDash(d.Metadata.Namespace)}, row...)
		}
		var more []string
		if c.row != nil {
			var own []string
			own, more = c.row(d.object)
			row = append(row, own...)
		}
		row = append(row, live(d.Status), age(d.Metadata.Created, now))
		if wide {
			row = append(row, more...)
		}
		for i := range row {
			row[i] = orDash(row[i])
		}
		rows = append(rows, row)
	}
	return header, rows
}

func live(s admin.Status) string { return fmt.Sprintf("%d/%d", s.Proxies.Live, s.Proxies.Total) }

// verdict is a status in a word: the reason of what is most wrong, or OK.
func verdict(o object) string {
	for _, c := range o.faults() {
		return c.Reason
	}
	return "OK"
}

// serviceSpec is what is shown of a service's spec.
type serviceSpec struct {
	Selector map[string]string
	Ports    []struct {
		Name        string
		Port        uint16
		AppProtocol string
	}
}

func serviceColumns(o object) (row, wide []string) {
	var s serviceSpec
	_ = json.Unmarshal(o.Spec, &s)
	var ports []string
	for _, p := range s.Ports {
		text := strconv.Itoa(int(p.Port))
		if word := p.AppProtocol; word != "" {
			text += "/" + word
		} else if p.Name != "" {
			text += "/" + p.Name
		}
		ports = append(ports, text)
	}
	ready := "-"
	if e := o.Status.Endpoints; e != nil {
		ready = fmt.Sprintf("%d/%d", e.Ready, e.Total)
	}
	return []string{strings.Join(ports, ","), ready}, []string{strings.Join(o.Status.VirtualIPs, ","), pairs(s.Selector)}
}

func pairs(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// workloadSpec is what is shown of a workload's spec.
type workloadSpec struct {
	Identity, Zone, Node, Capture string
	Addresses                     []string
	Ready                         bool
}

func workloadColumns(o object) (row, wide []string) {
	var s workloadSpec
	_ = json.Unmarshal(o.Spec, &s)
	ready := "no"
	if s.Ready {
		ready = "yes"
	}
	return []string{strings.Join(o.Status.Services, ","), ready, s.Zone}, []string{strings.Join(s.Addresses, ","), s.Capture, s.Identity}
}

func routeColumns(o object) (row, wide []string) {
	var s routeSpec
	_ = json.Unmarshal(o.Spec, &s)
	var parents, backends []string
	for _, p := range s.ParentRefs {
		parents = append(parents, p.String())
	}
	for _, r := range s.Rules {
		backends = append(backends, weights(r.BackendRefs, o.Metadata.Namespace))
	}
	return []string{strings.Join(parents, ","), verdict(o)}, []string{strings.Join(backends, "; ")}
}

func policyColumns(o object) (row, wide []string) {
	var s struct {
		Action     string
		TargetRefs []struct{ Name string }
	}
	_ = json.Unmarshal(o.Spec, &s)
	var targets []string
	for _, t := range s.TargetRefs {
		targets = append(targets, t.Name)
	}
	if len(targets) == 0 {
		targets = []string{"(the namespace)"}
	}
	if s.Action == "" {
		s.Action = "Allow"
	}
	return []string{s.Action, strings.Join(targets, ","), verdict(o)}, []string{strings.Join(o.Status.EnforcedBy, ",")}
}
