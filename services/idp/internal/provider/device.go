package provider

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// device is a program without a browser that waits for a person's consent.
type device struct {
	userCode string
	state    op.DeviceAuthorizationState
}

func (s *Storage) StoreDeviceAuthorization(
	_ context.Context, clientID, deviceCode, userCode string, expires time.Time, scopes []string,
) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deviceFor(userCode) != nil {
		return op.ErrDuplicateUserCode
	}
	state := op.DeviceAuthorizationState{ClientID: clientID, Scopes: scopes, Expires: expires}
	return s.devices.put(deviceCode, &device{userCode, state}, expires)
}

// deviceFor is called with the lock.
func (s *Storage) deviceFor(userCode string) *device {
	for _, row := range s.devices {
		if row.value.userCode == userCode && time.Now().Before(row.until) {
			return row.value
		}
	}
	return nil
}

func (s *Storage) GetDeviceAuthorizatonState(
	_ context.Context, clientID, deviceCode string,
) (*op.DeviceAuthorizationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting, ok := s.devices.get(deviceCode)
	if !ok || waiting.state.ClientID != clientID {
		return nil, errors.New("the device code is unknown, used or too old")
	}
	state := waiting.state
	state.Scopes = slices.Clone(state.Scopes)
	if state.Done {
		delete(s.devices, deviceCode)
	}
	return &state, nil
}

// ErrUserCode means that no device waits with that code.
var ErrUserCode = errors.New("no device waits with this code")

// Device returns the client that waits with the code that a person typed, and
// the code as it was shown.
func (s *Storage) Device(typed string) (clientID, userCode string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.deviceFor(tidy(typed))
	if waiting == nil || waiting.state.Done || waiting.state.Denied {
		return "", "", ErrUserCode
	}
	return waiting.state.ClientID, waiting.userCode, nil
}

// Decide allows or denies what a device waits for in the name of the person who
// is signed in.
func (s *Storage) Decide(ctx context.Context, userCode string, allow bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	browser, ok := s.sessions.get(sessionFrom(ctx))
	waiting := s.deviceFor(tidy(userCode))
	if !ok || browser.person == nil || waiting == nil || waiting.state.Done || waiting.state.Denied {
		return ErrUserCode
	}
	state := &waiting.state
	state.Done, state.Denied = allow, !allow
	state.Subject, state.AuthTime, state.AMR = browser.person.Name, browser.at, []string{"pwd"}
	state.Scopes = browser.person.granted(state.Scopes)
	return nil
}

// tidy brings a code that somebody typed into its form, WXYZ-WXYZ.
func tidy(typed string) string {
	letters := strings.Map(func(r rune) rune {
		if strings.ContainsRune(op.CharSetBase20, r) {
			return r
		}
		return -1
	}, strings.ToUpper(typed))
	if len(letters) != op.UserCodeBase20.CharAmount {
		return typed
	}
	return letters[:4] + "-" + letters[4:]
}
