package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/heddle-mesh/heddle/install/local"
)

// TestWhichProject chooses a project where no flag names one. Projects run as far as the
// choice can tell: their socket takes connections.
func TestWhichProject(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	t.Chdir(t.TempDir())
	start := func(name string) (stop func()) {
		p, err := local.OpenProject(stateHome(), name)
		if err == nil {
			err = p.Make()
		}
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", filepath.Join(p.Dir, "supervisor.sock"))
		if err != nil {
			t.Fatal(err)
		}
		return func() { l.Close() }
	}
	is := func(f projectFlags, want, wantErr string) {
		t.Helper()
		p, err := f.project()
		if p.Name != want || wantErr == "" && err != nil || wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) {
			t.Errorf("project %q, error %v; want %q, %q", p.Name, err, want, wantErr)
		}
	}
	file := func(text string) {
		t.Helper()
		if err := os.WriteFile(defaultFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	running, ended := projectFlags{}, projectFlags{ended: true}

	is(running, "", errNoProject.Error())
	stopA := start("a")
	is(running, "a", "")
	file("name: b\nservices: {x: {command: [x]}}\n")
	is(ended, "a", "") // b was never started
	stopB := start("b")
	is(running, "b", "")
	stopB()
	is(running, "a", "")
	is(ended, "b", "")
	file("nam: b\n")
	is(ended, "a", "")
	stopA()
	is(ended, "", "did you mean name?")
	is(running, "", errNoProject.Error())
	if _, err := running.project(); !errors.Is(err, errNoProject) {
		t.Errorf("error %v; 'heddle ps' and 'heddle down' would take it for a failure", err)
	}
}
