package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// privateFile is a file that only one app sees with this content.
type privateFile struct {
	Path    string
	Content []byte
	// Optional ones are left alone if the machine has no such file.
	Optional bool
}

// privateFiles lists what makes the app's resolver use our files.
func privateFiles(resolvConf, hosts []byte) []privateFile {
	var files []privateFile
	if hosts != nil {
		files = append(files, privateFile{Path: "/etc/hosts", Content: hosts})
	}
	if resolvConf == nil {
		return files
	}
	files = append(files, privateFile{Path: "/etc/resolv.conf", Content: resolvConf})
	// glibc does not always ask resolv.conf's server: nss modules such as
	// resolve and mdns, and nscd, are asked over Unix sockets, behind which is
	// the machine's resolver, which knows nothing of the mesh.
	if text, err := os.ReadFile("/etc/nsswitch.conf"); err == nil {
		if plain := plainHosts(string(text)); plain != string(text) {
			files = append(files, privateFile{Path: "/etc/nsswitch.conf", Content: []byte(plain), Optional: true})
		}
	}
	return append(files,
		privateFile{Path: "/run/nscd/socket", Optional: true},
		privateFile{Path: "/var/run/nscd/socket", Optional: true})
}

// plainHosts reduces the hosts line of an nsswitch.conf(5) to files and dns.
func plainHosts(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		body, _, _ := strings.Cut(line, "#")
		if db, sources, ok := strings.Cut(body, ":"); ok && strings.TrimSpace(db) == "hosts" {
			if !slices.Equal(strings.Fields(sources), []string{"files", "dns"}) {
				line = "hosts: files dns\n"
			}
		}
		out.WriteString(line)
	}
	return out.String()
}

// privateMounts gives the calling thread, and what it executes, a mount
// namespace of its own. The machine's later mounts still arrive (slave), ours
// do not leave.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// mountFiles puts files in place for the calling thread alone. They live in
// a tmpfs that no path leads to afterwards, so nothing has to be cleaned up.
func mountFiles(files []privateFile) error {
	// In a nested user namespace the process was born with its own mounts;
	// one more set costs nothing. It also makes the thread stop sharing its
	// root and working directory with the process's others.
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("create mount namespace: %w", err)
	}
	if err := privateMounts(); err != nil {
		return err
	}
	dir, err := mountStaging()
	if err != nil {
		return err
	}
	for i, f := range files {
		if err := mountFile(filepath.Join(dir, strconv.Itoa(i)), f); err != nil {
			return errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
		}
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// mountStaging mounts a tmpfs over any directory; we uncover it again.
func mountStaging() (string, error) {
	var errs []error
	for _, dir := range []string{"/tmp", "/run", "/mnt", "/var"} {
		err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=4m")
		if err == nil {
			return dir, nil
		}
		errs = append(errs, fmt.Errorf("mount tmpfs on %s: %w", dir, err))
	}
	return "", errors.Join(errs...)
}

func mountFile(staged string, f privateFile) error {
	// The target is opened without following it and mounted on by its
	// descriptor: so it works as well where /etc/resolv.conf is a symbolic
	// link, dangling ones included (the mount then covers the link itself).
	target, err := unix.Open(f.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && f.Optional {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cover %s (an empty file would do): %w", f.Path, err)
	}
	defer unix.Close(target)
	if err := os.WriteFile(staged, f.Content, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(staged, 0o644); err != nil { // whatever the umask
		return err
	}
	if err := unix.Mount(staged, "/proc/self/fd/"+strconv.Itoa(target), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount over %s: %w", f.Path, err)
	}
	return nil
}
