package stack

import (
	"errors"
	"fmt"
	"os"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// serverUser is the user PostgreSQL runs as: nil for this one, another when this is root, whom it refuses.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := osuser.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root and there is neither a user postgres nor nobody: " +
		"run this as an ordinary user")
}

// dataDir returns the server's data folder, made when missing. It carries the major version, so that an upgraded
// PostgreSQL starts afresh instead of refusing foreign data. For another user, who may not be allowed to enter this
// user's home, the folder is a link to one in /var/tmp.
func (p *Postgres) dataDir(bin string, user *syscall.Credential) (string, error) {
	major := filepath.Base(filepath.Dir(bin))
	link := filepath.Join(p.dir, "postgres-"+major)
	if real, err := filepath.EvalSymlinks(link); err == nil {
		return real, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) { // a link whose target is gone
		return "", err
	}
	if user == nil {
		return link, os.MkdirAll(link, 0o700)
	}
	outside, err := os.MkdirTemp("/var/tmp", "orderflow-postgres-")
	if err != nil {
		return "", err
	}
	data := filepath.Join(outside, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return "", err
	}
	for _, dir := range []string{outside, data} {
		if err := os.Chown(dir, int(user.Uid), int(user.Gid)); err != nil {
			return "", err
		}
	}
	return data, os.Symlink(data, link)
}

// removeData deletes the data folders, linked ones included.
func (p *Postgres) removeData() error {
	links, err := filepath.Glob(filepath.Join(p.dir, "postgres-*"))
	if err != nil {
		return err
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			if err := os.RemoveAll(filepath.Dir(target)); err != nil {
				return fmt.Errorf("remove PostgreSQL data: %w", err)
			}
		}
		if err := os.RemoveAll(link); err != nil {
			return fmt.Errorf("remove PostgreSQL data: %w", err)
		}
	}
	return nil
}
