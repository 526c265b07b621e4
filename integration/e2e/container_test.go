package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// container makes the script that mounts what a container has and becomes its program.
func (e *engine) container(name string, s composeService) (script string, env []string) {
	i := e.images[s.Image]
	lines := []string{"mount --bind " + i.root + " " + i.root}
	mount := func(to, command string) {
		to = filepath.Join(i.root, to)
		if _, err := os.Stat(to); err != nil {
			if err := os.MkdirAll(to, 0o755); err != nil {
				e.t.Fatal(err)
			}
		}
		lines = append(lines, command+" "+to)
	}
	mount("/proc", "mount -t proc proc")
	mount("/dev", "mount --rbind /dev")
	for _, v := range s.Volumes {
		part := strings.Split(v, ":")
		from := part[0]
		if strings.HasPrefix(from, ".") {
			from, _ = filepath.Abs(filepath.Join(composeDir, from))
			if info, err := os.Stat(from); err == nil && info.Mode().IsRegular() {
				e.touch(filepath.Join(i.root, part[1]))
			}
		} else {
			from = e.volume(from, filepath.Join(i.root, part[1]))
		}
		mount(part[1], "mount --bind "+from)
	}
	for _, text := range s.Tmpfs {
		to, options, ok := strings.Cut(text, ":")
		if ok {
			options = "-o " + options
		}
		mount(to, "mount -t tmpfs "+options+" tmpfs")
	}
	if s.ReadOnly {
		lines = append(lines, "mount -o remount,bind,ro "+i.root)
	}
	args := append([]string{"exec", "chroot", "--userspec=" + i.Config.User, i.root}, i.Config.Entrypoint...)
	for _, arg := range s.Command {
		args = append(args, "'"+arg+"'")
	}
	for _, variable := range i.Config.Env {
		if !strings.HasPrefix(variable, "PATH=") {
			env = append(env, variable)
		}
	}
	for name, value := range s.Environment {
		env = append(env, name+"="+value)
	}
	return strings.Join(append(lines, strings.Join(args, " ")), "\n"), append(env, "PATH="+os.Getenv("PATH"))
}

// touch makes an empty file to mount another on.
func (e *engine) touch(file string) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		e.t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		e.t.Fatal(err)
	}
}

// volume makes a named volume. A new one is like the directory that it is mounted on.
func (e *engine) volume(name, at string) string {
	dir := filepath.Join(e.dir, "volumes", name)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	info, err := os.Stat(at)
	if err != nil {
		e.t.Fatalf("volume %s: %v", name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		e.t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(dir, int(stat.Uid), int(stat.Gid)); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Chmod(dir, info.Mode().Perm()); err != nil {
		e.t.Fatal(err)
	}
	return dir
}
