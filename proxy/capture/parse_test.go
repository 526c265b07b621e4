package capture

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseUser(t *testing.T) {
	for in, want := range map[string]userSpec{
		"postgres":  {name: "postgres"},
		"70":        {uid: 70},
		"70:71":     {uid: 70, gid: 71, hasGID: true},
		"www-data$": {name: "www-data$"},
	} {
		got, err := parseUser(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", ":", "1:", ":1", "4294967295", "-1", "+1", "1:x", "a:1", "a b", "70x"} {
		if got, err := parseUser(in); err == nil {
			t.Errorf("%q: %+v", in, got)
		}
	}
}

func TestPlainHosts(t *testing.T) {
	in := "passwd: files\nhosts: files mdns4_minimal [NOTFOUND=return] resolve dns # x\nnetworks: files\n"
	want := "passwd: files\nhosts: files dns\nnetworks: files\n"
	if diff := cmp.Diff(want, plainHosts(in)); diff != "" {
		t.Error(diff)
	}
	if same := "hosts:\tfiles dns\n"; plainHosts(same) != same {
		t.Error("changed what was right")
	}
}

func FuzzParseUser(f *testing.F) {
	for _, s := range []string{"postgres", "70", "70:71", "1:", "\x00", "4294967295"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseUser(s)
		if err == nil && (u.uid == 1<<32-1 || u.gid == 1<<32-1 || u.name != "" && (u.hasGID || u.name != s)) {
			t.Errorf("%q: %+v", s, u)
		}
	})
}

func FuzzPlainHosts(f *testing.F) {
	for _, s := range []string{"", "hosts: files dns\n", "hosts:resolve", "#hosts: x\nhosts : nis # y\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := plainHosts(s)
		if twice := plainHosts(once); twice != once {
			t.Errorf("%q, then %q", once, twice)
		}
		if strings.Count(once, "\n") < strings.Count(s, "\n") {
			t.Errorf("lines were lost: %q", once)
		}
	})
}

func FuzzParseIDMap(f *testing.F) {
	for _, s := range []string{"", "0 1000 1\n", "         0          0 4294967295\n", "0 x 1\n1 2 3 4\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := parseIDMap(s); len(got) > strings.Count(s, "\n")+1 {
			t.Errorf("%d ranges of %q", len(got), s)
		}
	})
}

func TestParseMode(t *testing.T) {
	for _, m := range []Mode{Explicit, Rootless, Transparent} {
		if got, err := ParseMode(m.String()); got != m || err != nil {
			t.Errorf("%s: %v, %v", m, got, err)
		}
	}
	if _, err := ParseMode("iptables"); err == nil {
		t.Error("accepted")
	}
}
