package kubernetes

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// TestTable: a table hands on what differs, once, by whatever way it came.
func TestTable(t *testing.T) {
	r := &resource{path: "/api/v1/pods", convert: func(o runtime.Object) any {
		if uid := string(o.(*corev1.Pod).UID); uid != "" {
			return uid
		}
		return nil
	}}
	changes := 0
	table := newTable(r, equal[string], func() { changes++ })
	a := func(name, value string) *corev1.Pod {
		p := new(corev1.Pod)
		p.Namespace, p.Name, p.UID = "shop", name, types.UID(value)
		return p
	}
	for _, step := range []struct {
		name string
		do   func() error
		want []string // NAME=VALUE, "" for gone
	}{
		{"the first list", func() error { return table.Replace([]any{a("a", "1"), a("b", "1"), a("none", "")}, "") }, []string{"a=1", "b=1"}},
		{"nothing", func() error { return nil }, nil},
		{"the same again", func() error { return table.Replace([]any{a("b", "1"), a("a", "1")}, "") }, nil},
		{"one changes", func() error { return table.Update(a("a", "2")) }, []string{"a=2"}},
		{"it does not", func() error { return table.Update(a("a", "2")) }, nil},
		{"one comes", func() error { return table.Add(a("c", "1")) }, []string{"c=1"}},
		{"one goes", func() error { return table.Delete(a("c", "1")) }, []string{"c="}},
		{"it is gone", func() error { return table.Delete(a("c", "1")) }, nil},
		{"one is nothing to us any more", func() error { return table.Update(a("a", "")) }, []string{"a="}},
		{"a list after a gap", func() error { return table.Replace([]any{a("d", "1")}, "") }, []string{"b=", "d=1"}},
		{"a kind that is not installed any more", func() error { return table.Replace(nil, "") }, []string{"d="}},
	} {
		t.Run(step.name, func(t *testing.T) {
			changes = 0
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
			if told := changes > 0; told != (step.want != nil) {
				t.Errorf("told %d times of %v", changes, step.want)
			}
			var got []string
			for _, u := range table.take() {
				got = append(got, u.name.Name+"="+u.value)
			}
			slices.Sort(got)
			if !slices.Equal(got, step.want) {
				t.Errorf("changed %v, want %v", got, step.want)
			}
		})
	}
	select {
	case <-table.full:
	default:
		t.Error("the first list is not in")
	}
}

func TestTableWakesWhoWaits(t *testing.T) {
	r := &resource{path: "/api/v1/pods", convert: func(runtime.Object) any { return "x" }}
	table := newTable(r, equal[string], func() {})
	_, ok, changed := table.lookup(mesh.Name{Name: "a"})
	if ok {
		t.Fatal("an empty table has it")
	}
	p := new(corev1.Pod)
	p.Name = "a"
	if err := table.Add(p); err != nil {
		t.Fatal(err)
	}
	<-changed
	if v, ok, _ := table.lookup(mesh.Name{Name: "a"}); !ok || v != "x" {
		t.Errorf("it has %q, %v", v, ok)
	}
}
