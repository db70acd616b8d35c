import { useMutation } from '@tanstack/react-query';
import { Icon } from '../components/icons.tsx';
import { Refusal } from './parts.tsx';

interface Props {
  label: string;
  name: string;
  read: () => Promise<Blob>;
  disabled?: boolean;
}

/** Saves what is read as a file. Not a link: a browser follows those without the token. */
export function Download({ label, name, read, disabled = false }: Props) {
  const reading = useMutation({
    mutationFn: read,
    onSuccess: (content) => {
      const link = document.createElement('a');
      link.href = URL.createObjectURL(content);
      link.download = name;
      link.click();
      URL.revokeObjectURL(link.href);
    },
  });
  return (
    <>
      <button
        type="button"
        className="button quiet compact"
        disabled={disabled || reading.isPending}
        onClick={() => {
          reading.mutate();
        }}
      >
        <Icon name="download" />
        {reading.isPending ? 'Reading…' : label}
      </button>
      <Refusal error={reading.error} />
    </>
  );
}
