package dns

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

// Table holds the names of all services. It never changes: [Table.Update]
// makes a new one that shares the entries of services that did not change.
type Table struct {
	zone       *Zone
	entries    map[string]*entry // by hostKey
	namespaces map[string]int    // wire label -> services in it
	ptrs       map[netip.Addr][]string
}

// Key names a service.
type Key struct{ Namespace, Name string }

// NewTable makes a table of a zone. One bad host stops only itself: the table
// always holds the good ones, and the error, if any, names each bad one.
func NewTable(zone *Zone, hosts []*namepb.Host) (*Table, error) {
	empty := &Table{zone: zone}
	return empty.Update(hosts, nil)
}

// Update returns a table with hosts added or replaced and others removed. A bad
// host leaves its service as it was and is named in the error. The cost beyond
// the changed hosts is a copy of the maps' pointers.
func (t *Table) Update(set []*namepb.Host, remove []Key) (*Table, error) {
	next := &Table{
		zone: t.zone, entries: cloneMap(t.entries),
		namespaces: cloneMap(t.namespaces), ptrs: cloneMap(t.ptrs),
	}
	for _, k := range remove {
		next.remove(hostKey(k.Namespace, k.Name))
	}
	var errs []error
	for _, h := range set {
		err := namepb.Check(h)
		var e *entry
		if err == nil {
			e, err = newEntry(t.zone, h)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("DNS host %s/%s: %w", h.GetNamespace(), h.GetName(), err))
			continue
		}
		next.remove(e.key)
		next.insert(e)
	}
	return next, errors.Join(errs...)
}

// Len is the number of services in the table.
func (t *Table) Len() int { return len(t.entries) }

func (t *Table) insert(e *entry) {
	t.entries[e.key] = e
	t.namespaces[wireLabel(e.host.Namespace)]++
	for _, p := range e.ptrs {
		// Always a new slice: the old one may belong to an earlier table.
		targets := append(slices.Clone(t.ptrs[p.addr]), p.target)
		slices.Sort(targets)
		t.ptrs[p.addr] = targets
	}
}

func (t *Table) remove(key string) {
	e := t.entries[key]
	if e == nil {
		return
	}
	delete(t.entries, key)
	ns := wireLabel(e.host.Namespace)
	if t.namespaces[ns]--; t.namespaces[ns] == 0 {
		delete(t.namespaces, ns)
	}
	for _, p := range e.ptrs {
		var rest []string
		for _, target := range t.ptrs[p.addr] {
			if target != p.target {
				rest = append(rest, target)
			}
		}
		if len(rest) == 0 {
			delete(t.ptrs, p.addr)
		} else {
			t.ptrs[p.addr] = rest
		}
	}
}

func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return make(map[K]V)
	}
	return maps.Clone(m)
}

// match is what the table knows about a name.
type match struct {
	ours  bool   // the name is under our authority
	short bool   // it was found as a short name
	node  *node  // its records; nil with ours set: NXDOMAIN
	entry *entry // the service it belongs to, if it is one's
}

// empty stands for every name that exists without records.
var empty = new(node)

// find looks up a whole name in lower-case wire form, with its final zero.
func (t *Table) find(q []byte) match {
	var at [129]uint8 // where each label begins, then where the root does
	n := 0
	for i := 0; q[i] != 0; i += int(q[i]) + 1 {
		at[n] = uint8(i)
		n++
	}
	at[n] = uint8(len(q) - 1)
	left := n - t.zone.labels // labels in front of the domain
	if left >= 0 && bytes.Equal(q[at[left]:], t.zone.wire) {
		m := t.findLong(q, at[:left+1])
		if t.zone.beside && (m.entry == nil || m.node == nil) {
			return match{}
		}
		return m
	}
	if t.zone.beside {
		return match{}
	}
	if bytes.HasSuffix(q, arpa) {
		if m := t.findReverse(q); m.ours {
			return m
		}
	}
	return t.findShort(q, at[:n+1])
}

var arpa = []byte("\x04arpa\x00")
var svc = []byte("\x03svc")

// findLong looks up a name under the domain. at holds the beginnings of the
// labels in front of the domain, and of the domain.
func (t *Table) findLong(q []byte, at []uint8) match {
	n := len(at) - 1
	switch {
	case n == 0:
		return match{ours: true, node: t.zone.apex}
	case n == 1 && string(q[:at[1]]) == "\x0bdns-version":
		return match{ours: true, node: t.zone.version}
	case !bytes.Equal(q[at[n-1]:at[n]], svc):
		return match{ours: true}
	case n == 1:
		return match{ours: true, node: empty}
	case n == 2:
		if t.namespaces[string(q[:at[1]])] > 0 {
			return match{ours: true, node: empty}
		}
		return match{ours: true}
	}
	e := t.entries[string(q[at[n-3]:at[n-1]])]
	if e == nil {
		return match{ours: true}
	}
	return match{ours: true, node: e.nodes[string(q[:at[n-3]])], entry: e}
}

// findShort walks the search path of Kubernetes for a client that has none:
// q under NS.svc.DOMAIN, then under svc.DOMAIN, then under DOMAIN. A service
// called the name itself is ours even while it has no records; a name
// in front of one (pod-0.db) only if it exists, as it may be a real one.
//
// So a service "example" in a namespace "com" hides example.com. from the
// mesh's workloads. Who may make namespaces may already do so by search paths.
func (t *Table) findShort(q []byte, at []uint8) match {
	n := len(at) - 1
	if n == 0 {
		return match{}
	}
	end := at[n]
	switch string(q[at[n-1]:end]) {
	case "\x09localhost", "\x07invalid": // never names of services, see specialUse
		return match{}
	}
	var buf [2 * 64]byte
	key := append(append(buf[:0], q[at[n-1]:end]...), t.zone.own...)
	if m := shortMatch(t.entries[string(key)], q[:at[n-1]]); m.ours || n == 1 {
		return m
	}
	if m := shortMatch(t.entries[string(q[at[n-2]:end])], q[:at[n-2]]); m.ours {
		return m
	}
	if n > 2 && bytes.Equal(q[at[n-1]:end], svc) {
		return shortMatch(t.entries[string(q[at[n-3]:at[n-1]])], q[:at[n-3]])
	}
	return match{}
}

func shortMatch(e *entry, prefix []byte) match {
	if e == nil {
		return match{}
	}
	n := e.nodes[string(prefix)]
	return match{ours: n != nil || len(prefix) == 0, short: true, node: n, entry: e}
}

// findReverse looks up the reverse name of an address (2.3.3, 2.4.3).
func (t *Table) findReverse(q []byte) match {
	name, _, err := dns.UnpackDomainName(q, 0)
	if err != nil {
		return match{}
	}
	addr, ok := reverseAddr(name)
	if !ok {
		return match{}
	}
	targets := t.ptrs[addr]
	if len(targets) == 0 {
		return match{ours: t.zone.ownsAddr(addr), short: true}
	}
	n := &node{name: name}
	for _, target := range targets {
		n.add(&dns.PTR{Hdr: header(name, dns.TypePTR), Ptr: target})
	}
	return match{ours: true, short: true, node: n}
}
