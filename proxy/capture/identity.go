package capture

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// identity is who a process is.
type identity struct {
	UID, GID uint32
	Groups   []uint32
}

// nobody is who an app is in Rootless when root itself started heddle.
const nobody = 65534

// userSpec is a parsed Exec.User: a name, or numbers.
type userSpec struct {
	name   string
	uid    uint32
	gid    uint32
	hasGID bool
}

// parseUser reads a name or UID[:GID].
func parseUser(s string) (userSpec, error) {
	bad := func() (userSpec, error) {
		return userSpec{}, fmt.Errorf("user %q: want a name or UID[:GID]", s)
	}
	first, second, hasGID := strings.Cut(s, ":")
	uid, err := parseID(first)
	if err != nil {
		if hasGID || first == "" || len(first) > 256 || strings.ContainsRune("+-0123456789", rune(first[0])) || strings.ContainsAny(first, "/ \t\n\x00") {
			return bad()
		}
		return userSpec{name: first}, nil
	}
	u := userSpec{uid: uid, hasGID: hasGID}
	if hasGID {
		if u.gid, err = parseID(second); err != nil {
			return bad()
		}
	}
	return u, nil
}

// parseID refuses the all-ones id, which system calls take for "unchanged".
func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 || s[0] == '+' {
		return 0, fmt.Errorf("%q is not a uid or gid", s)
	}
	return uint32(n), nil
}

// lookUpUser finds the ids and groups of a user. A bare UID that is in no user
// database has its GID equal to it.
func lookUpUser(s string) (identity, error) {
	spec, err := parseUser(s)
	if err != nil {
		return identity{}, err
	}
	var u *user.User
	if spec.name != "" {
		if u, err = user.Lookup(spec.name); err != nil {
			return identity{}, fmt.Errorf("look up user: %w", err)
		}
	} else {
		u, err = user.LookupId(strconv.FormatUint(uint64(spec.uid), 10))
		if err != nil || spec.hasGID {
			id := identity{UID: spec.uid, GID: spec.uid}
			if spec.hasGID {
				id.GID = spec.gid
			}
			return id, nil
		}
	}
	uid, err := parseID(u.Uid)
	if err != nil {
		return identity{}, err
	}
	gid, err := parseID(u.Gid)
	if err != nil {
		return identity{}, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return identity{}, fmt.Errorf("look up groups of %s: %w", u.Username, err)
	}
	id := identity{UID: uid, GID: gid}
	for _, g := range groups {
		if n, err := parseID(g); err == nil {
			id.Groups = append(id.Groups, n)
		}
	}
	return id, nil
}

// rootlessIdentity is who an app appears to be in Rootless: s, or the user
// who started heddle. Programs such as PostgreSQL's initdb refuse uid 0 and
// want their uid in /etc/passwd.
func rootlessIdentity(s string) (identity, error) {
	if s != "" {
		id, err := lookUpUser(s)
		if err == nil && id.UID == 0 {
			err = fmt.Errorf("user %q: there is no root for apps in rootless mode", s)
		}
		return id, err
	}
	id := identity{UID: outerUID(), GID: outerGID()}
	if id.UID == 0 {
		id = identity{UID: nobody, GID: nobody}
	}
	return id, nil
}

// outerGID is as outerUID.
func outerGID() uint32 {
	text, err := os.ReadFile("/proc/self/gid_map")
	if err != nil {
		return nobody
	}
	for _, m := range parseIDMap(string(text)) {
		if m.inside == 0 {
			return m.outside
		}
	}
	return nobody
}
